"""Every family in docs/models.md, from a request over HTTP to its result: the API, the database, Redis, the media's
decoding child, the worker's way of a job and the engine are the real ones."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from transformers import AutoModelForImageTextToText, AutoTokenizer

from api.app import create_app
from api.services import EXTENSION
from engine.load import load_engine
from engine.types import CheckpointSettings, VideoClip
from media.load import LocalFile, MediaLoader, VideoSampling
from models.db import Database
from tasks.conversation import ConversationLoader
from tasks.held_jobs import HeldJobs
from tasks.prompt_template import chat_renderer
from tasks.run_job import JobRunner
from tasks.video_sampling import SamplingRules
from tests.engine.families import FAMILIES, save_family
from tests.engine.families.family import Case
from tests.engine.families.reference import CHATS, count, plain_inputs, plain_tokens
from tests.media.samples import Pixels, image_bytes, moving, picture, write_video
from tests.processes import until
from tests.vlmq.test_chat_templates import GUIDE
from vlmq.config import Settings
from vlmq.doorbell import Doorbell, make_celery
from vlmq.events import EventLog
from vlmq.files import FileStore
from vlmq.served_model import ServedModel

LENGTH = 8
FRAMES = 4
GENERATION = {"max_new_tokens": LENGTH, "do_sample": False}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite alone: what a family is makes no difference to a database."""
    return sqlite_url


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaLoader]:
    loader = MediaLoader(Settings(data_dir=tmp_path_factory.mktemp("media"), _env_file=None))
    yield loader
    loader.close()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", "mp4", "mpeg4", moving(40, 64, 64), rate=20)


class Sender:
    """Turns the parts of a chat into those of a request: images inline and uploaded in turn, videos uploaded."""

    def __init__(self, client: FlaskClient, video: Path) -> None:
        self._client, self._video = client, video
        self.images: list[Pixels] = []

    def request(self, name: str, chat: list[dict[str, Any]]) -> dict[str, Any]:
        messages = [message | {"content": [self._part(part) for part in message["content"]]} for message in chat]
        return {"model": name, "messages": messages, "generation": GENERATION}

    def _part(self, part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] == "video":
            return part | {"file_id": self._upload(self._video.read_bytes(), "clip.mp4"), "num_frames": FRAMES}
        if part["type"] == "image":
            pixels = picture(64, 48, seed=len(self.images))
            self.images.append(pixels)
            data = image_bytes(pixels, "PNG")
            inline = len(self.images) % 2 == 1
            return part | (
                {"base64": base64.b64encode(data).decode()} if inline else {"file_id": self._upload(data, "a.png")}
            )
        return part

    def _upload(self, data: bytes, name: str) -> str:
        answer = self._client.post(
            "/v1/files", data={"file": (io.BytesIO(data), name)}, content_type="multipart/form-data"
        )
        assert answer.json is not None
        return str(answer.json["id"])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_job_over_http_ends_with_what_plain_transformers_says(
    name: str,
    settings: Settings,
    database: Database,
    event_log: EventLog,
    media: MediaLoader,
    video: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / name
    save_family(name, folder)
    served = ServedModel(checkpoint=str(folder))
    settings = settings.model_copy(update={"models": {name: served}})
    engine = load_engine(CheckpointSettings(served.checkpoint, device="cpu"), chat_renderer(media.templates))
    held = HeldJobs(settings, "w1", database, engine, event_log)
    files = FileStore(settings.files_dir)
    rules = SamplingRules(served, engine.description.video_defaults, settings.limits.max_video_frames)
    conversations = ConversationLoader(database, files, media, rules, settings.limits.max_job_pixels)
    doorbell = Doorbell(make_celery(settings))
    runner = JobRunner(settings, name, "w1", database, doorbell, conversations, engine, held, media.templates)
    app = create_app(settings)
    held.start()

    def ask(case: Case, **fields: Any) -> tuple[dict[str, Any], list[Pixels]]:
        sender = Sender(app.test_client(), video)
        posted = app.test_client().post("/v1/jobs", json=sender.request(name, CHATS[case]) | fields)
        assert posted.status_code == 202, posted.json
        assert posted.json is not None
        assert runner.run_next()
        return app.test_client().get(f"/v1/jobs/{posted.json['id']}").json or {}, sender.images

    try:
        for case in FAMILIES[name].cases:
            job, images = ask(case)
            assert job["status"] == "completed", (case, job)
            clips = [_clip(media, video)] * count(CHATS[case], "video")
            text, tokens = _plain_answer(folder, CHATS[case], images, clips)
            assert job["output_text"] == text, case
            assert _streamed(event_log, job["id"]) == text, case
            assert job["usage"]["completion_tokens"] == tokens
            assert (job["usage"]["images"], job["usage"]["frames"]) == (len(images), FRAMES * len(clips))
        for case in CHATS.keys() - set(FAMILIES[name].cases):
            job, _ = ask(case)
            assert (job["status"], job["attempts"]) == ("failed", 1), (case, job)
            assert job["error"]["code"] in ("unsupported_modality", "template_error"), (case, job)
        if name == "mllama":
            # The guide's template was written for this family.
            job, images = ask("turns", chat_template=GUIDE)
            assert job["status"] == "completed", job
            (folder / "chat_template.jinja").write_text(GUIDE)
            text, tokens = _plain_answer(folder, CHATS["turns"], images, [])
            assert (job["output_text"], job["usage"]["completion_tokens"]) == (text, tokens)
    finally:
        engine.close()
        held.stop()
        app.extensions[EXTENSION].close()
        app.extensions[EXTENSION].database.dispose()


def _streamed(event_log: EventLog, job_id: str) -> str:
    """All deltas of a job's stream together, once it has ended."""
    until(lambda: any(event.is_final for event in event_log.read(job_id)), what="the last event")
    return "".join(event.data["text"] for event in event_log.read(job_id) if event.type == "delta")


def _clip(media: MediaLoader, video: Path) -> VideoClip:
    it = media.load_video(LocalFile(video), VideoSampling(num_frames=FRAMES, max_frames=128), param="video")
    return VideoClip(it.frames, it.timestamps, it.frame_indices, it.fps, it.total_frames, it.duration)


def _plain_answer(
    folder: Path, chat: list[dict[str, Any]], images: list[Pixels], clips: list[VideoClip]
) -> tuple[str, int]:
    """The text without its special tokens, and how many tokens it has with them."""
    auto_model: Any = AutoModelForImageTextToText
    tokens = plain_tokens(auto_model.from_pretrained(folder).eval(), plain_inputs(folder, chat, images, clips), LENGTH)
    words: Any = AutoTokenizer.from_pretrained(folder)
    return words.backend_tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd"), len(tokens)
