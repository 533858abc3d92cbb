"""Every way to send and to sample a video, asked of the bundled model, which answers from what it sees."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from checkpoints.scenes import Clip, Frames, random_clip, write_mp4
from tests.journeys.stack import Stack
from tests.media.bombs import animation
from vlmq.client import Client
from vlmq.config import BUNDLED_CHECKPOINT

TINY = {"tiny-vlm": {"checkpoint": str(BUNDLED_CHECKPOINT), "device": "cpu"}}
SIZE = (320, 240)
EACH = 12
FPS = 6
WHICH = "What moves?"


def png(pixels: Frames) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@dataclass(frozen=True)
class Film:
    """Two clips one after the other, in each of which another thing moves."""

    path: Path
    frames: Frames
    answers: tuple[str, str]


def moving_clips() -> tuple[Clip, Clip]:
    rng = Random("film")
    first = random_clip(rng, "move", unseen=False)
    while True:
        second = random_clip(rng, "move", unseen=False)
        if second.things[0].name != first.things[0].name:
            return first, second


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def film(root: Path) -> Film:
    first, second = moving_clips()
    frames = np.concatenate([first.frames(EACH, SIZE), second.frames(EACH, SIZE)])
    write_mp4(frames, FPS, root / "film.mp4")
    return Film(root / "film.mp4", frames, (f"the {first.things[0].name}", f"the {second.things[0].name}"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("media") / "data"
    with Stack(folder, json.dumps(TINY), environment={"VLMQ_MEDIA_ROOT": str(root)}).until_killed() as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with stack.client() as client:
        yield client


def ask(client: Client, part: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The answer about a video, and what the manifest says of it."""
    messages = [{"role": "user", "content": [part, {"type": "text", "text": WHICH}]}]
    job = client.submit(messages, model="tiny-vlm", generation={"do_sample": False})
    done = client.wait(job.id, timeout_s=60)
    assert done.status == "completed", done.error
    answer = client.get(job.id).raw
    (video,) = answer["manifest"]["media"]
    return done.output_text, video


def test_two_clips_of_one_video_get_two_right_answers(client: Client, film: Film) -> None:
    file_id = client.upload(film.path)
    half = EACH / FPS
    for clip, right in zip(({"end": half - 0.1}, {"start": half}), film.answers, strict=True):
        answer, seen = ask(client, {"type": "video", "file_id": file_id, "num_frames": 8} | clip)
        assert answer == right
        begin, end = clip.get("start", 0.0), clip.get("end", 2 * half)
        assert len(seen["frame_timestamps_s"]) == 8
        assert all(begin <= time <= end for time in seen["frame_timestamps_s"])


def test_frames_named_by_number_or_by_time_are_those_that_the_model_saw(client: Client, film: Film) -> None:
    file_id = client.upload(film.path)
    for start, right in zip((0, EACH), film.answers, strict=True):
        numbers = list(range(start, start + EACH, 2))
        times = [number / FPS for number in numbers]
        for way in ({"frame_indices": numbers}, {"timestamps": [time + 0.01 for time in times]}):
            answer, seen = ask(client, {"type": "video", "file_id": file_id} | way)
            assert answer == right
            assert seen["frame_indices"] == numbers
            assert seen["frame_timestamps_s"] == pytest.approx(times, abs=1e-6)


@pytest.mark.parametrize("timed", [True, False])
def test_a_list_of_images_is_a_video(client: Client, film: Film, timed: bool) -> None:
    chosen = film.frames[EACH : 2 * EACH : 2]
    frames = [{"base64": base64.b64encode(png(pixels)).decode()} for pixels in chosen]
    times = [number * 2 / FPS for number in range(len(frames))]
    way: dict[str, Any] = {"timestamps": times} if timed else {"fps": FPS / 2}
    answer, seen = ask(client, {"type": "video", "frames": frames} | way)
    assert answer == film.answers[1]
    assert seen["frame_timestamps_s"] == pytest.approx(times)


def test_a_video_inside_the_request_and_one_below_the_root_are_seen(client: Client, film: Film) -> None:
    inline = base64.b64encode(film.path.read_bytes()).decode()
    for source in ({"base64": inline}, {"url": f"data:video/mp4;base64,{inline}"}, {"path": "film.mp4"}):
        answer, _ = ask(client, {"type": "video", "end": EACH / FPS - 0.1, "num_frames": 8} | source)
        assert answer == film.answers[0]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_an_animated_image_is_a_video_on_request(client: Client, film: Film, kind: str) -> None:
    data = animation(kind, list(film.frames), [1000 // FPS] * len(film.frames))
    inline = base64.b64encode(data).decode()
    for clip, right in zip(({"end": EACH / FPS - 0.3}, {"start": EACH / FPS}), film.answers, strict=True):
        answer, seen = ask(client, {"type": "video", "base64": inline, "num_frames": 8} | clip)
        assert answer == right
        assert len(seen["frame_timestamps_s"]) == 8


@pytest.mark.parametrize("backend", ["opencv", "decord"])
def test_another_backend_gives_the_same_answer(client: Client, film: Film, backend: str) -> None:
    part = {"type": "video", "path": "film.mp4", "start": EACH / FPS, "num_frames": 8}
    assert ask(client, part | {"backend": backend}) == ask(client, part)


def test_without_a_word_the_checkpoints_own_sampling_holds(client: Client, film: Film) -> None:
    _, seen = ask(client, {"type": "video", "path": "film.mp4"})
    # Four seconds at the 4 frames a second of its processor, which takes 16 at most.
    assert len(seen["frame_timestamps_s"]) == 16


def test_a_file_in_the_same_request_is_seen(stack: Stack, client: Client, film: Film) -> None:
    part = {"type": "video", "upload": "film", "end": EACH / FPS - 0.1, "num_frames": 8}
    job = {
        "model": "tiny-vlm",
        "messages": [{"role": "user", "content": [part, {"type": "text", "text": WHICH}]}],
        "generation": {"do_sample": False},
    }
    with film.path.open("rb") as file:
        answer = requests.post(f"{stack.url}/v1/jobs", data={"job": json.dumps(job)}, files={"film": file}, timeout=20)
    assert answer.status_code == 202, answer.text
    assert client.wait(answer.json()["id"], timeout_s=60).output_text == film.answers[0]


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ({"path": "film.mp4", "frame_indices": [24]}, "invalid_request"),
        ({"path": "film.mp4", "timestamps": [9.0]}, "invalid_request"),
        ({"path": "film.mp4", "num_frames": 17}, "invalid_request"),  # the checkpoint takes 16 at most
        ({"path": "film.mp4", "start": 99.0}, "video_invalid"),
        ({"path": "film.mp4", "backend": "torchvision"}, "unsupported_parameter"),
    ],
)
def test_what_the_video_does_not_have_fails_the_job_with_its_code(
    client: Client, film: Film, part: dict[str, Any], code: str
) -> None:
    content = [{"type": "video"} | part, {"type": "text", "text": WHICH}]
    job = client.submit([{"role": "user", "content": content}], model="tiny-vlm")
    done = client.wait(job.id, timeout_s=60)
    assert (done.status, (done.error or {}).get("code")) == ("failed", code)
