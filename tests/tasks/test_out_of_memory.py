"""Jobs whose media do not fit the memory, in a worker, with a scripted engine and with a real one."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from engine.checkpoint import load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.types import CheckpointSettings, PromptRequest, Sequence
from models.db import Database, utc_now
from models.file import File
from models.job import JobStatus
from tests.media.samples import moving, write_video
from tests.processes import until
from tests.tasks.rows import get_job, insert_job
from tests.tasks.test_run_job import Desk
from vlmq.config import BUNDLED_CHECKPOINT, Settings, Timing
from vlmq.events import EventLog

FRAMES, WIDTH, HEIGHT = 16, 160, 128


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def quiet(settings: Settings) -> Settings:
    return settings.model_copy(update={"timing": Timing(lease_s=600, heartbeat_s=300)})


@pytest.fixture
def desk(quiet: Settings, database: Database, event_log: EventLog, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(quiet, database, event_log)
    keep_media(desk, tmp_path)
    yield desk
    desk.close()


def keep_media(desk: Desk, folder: Path) -> None:
    """A video of sixty frames and an image, as uploaded files."""
    clip = write_video(folder / "clip.mp4", "mp4", "libx264", moving(60, WIDTH, HEIGHT)).read_bytes()
    picture = io.BytesIO()
    Image.new("RGB", (400, 300), "red").save(picture, "PNG")
    with desk.database.write() as session:
        for name, data, media_type in (("v", clip, "video/mp4"), ("i", picture.getvalue(), "image/png")):
            stored = desk.files.put([data], limit=10**7)
            session.add(
                File(
                    id=f"file_{name}",
                    tenant="acme",
                    sha256=stored.sha256,
                    size=len(data),
                    media_type=media_type,
                    created_at=utc_now(),
                )
            )


def asking(text: str, **fields: Any) -> dict[str, Any]:
    content = [
        {"type": "video", "file_id": "file_v", "num_frames": FRAMES},
        {"type": "text", "text": text},
    ]
    return {"messages": [{"role": "user", "content": content}], "generation": {"max_new_tokens": 8}} | fields


def progress(desk: Desk, job_id: str) -> list[dict[str, Any]]:
    return [event.data for event in desk.event_log.read(job_id) if event.type == "progress"]


def test_fewer_frames_are_looked_at_until_they_fit(desk: Desk) -> None:
    job_id = insert_job(desk.database, request=asking('{"tokens": 3, "memory_error_above_frames": 9}'))
    assert desk.runner.run_next()
    job = get_job(desk.database, job_id)
    assert (job.status, job.output_text, job.attempts) == (JobStatus.COMPLETED, "w1 w2 w3", 1)
    assert job.degraded == {
        "reason": "out_of_memory",
        "steps": [{"what": "frames", "from": 16, "to": 8}],
        "frames": {"given": 16, "seen": 8},
        "pixels": {"given": 16 * WIDTH * HEIGHT, "seen": 8 * WIDTH * HEIGHT},
    }
    assert job.usage is not None
    assert job.manifest is not None
    assert job.usage["frames"] == 8
    assert len(job.manifest["media"][0]["frame_timestamps_s"]) == 8
    until(lambda: any(event.is_final for event in desk.event_log.read(job_id)), what="the last event")
    assert [data["stage"] for data in progress(desk, job_id)] == ["media", "generating", "degraded", "generating"]
    assert progress(desk, job_id)[2] == {"stage": "degraded", **job.degraded}
    assert desk.text(job_id) == job.output_text


def test_the_full_text_begins_with_the_prompt_that_was_read_in_the_end(desk: Desk) -> None:
    request = asking('{"tokens": 2, "memory_error_above_frames": 9}', return_full_text=True)
    job_id = insert_job(desk.database, request=request)
    prepare = desk.engine.prepare

    def writing_the_frames(id: str, prompt: PromptRequest, *rest: Any, **options: Any) -> Sequence:
        text = f"{len(prompt.videos[0].timestamps)} frames: "
        return replace(prepare(id, prompt, *rest, **options), prompt=text, lead=text)

    desk.engine.prepare = writing_the_frames  # type: ignore[method-assign]
    assert desk.runner.run_next()
    job = get_job(desk.database, job_id)
    assert (job.output_text, job.prompt) == ("8 frames: w1 w2", "8 frames: ")
    until(lambda: any(event.is_final for event in desk.event_log.read(job_id)), what="the last event")
    assert desk.text(job_id) == job.output_text


def test_each_of_several_texts_is_made_with_what_fits(desk: Desk) -> None:
    several = {"max_new_tokens": 8, "do_sample": True, "num_return_sequences": 3}
    request = asking('{"tokens": 2, "memory_error_above_frames": 9}', generation=several)
    job_id = insert_job(desk.database, request=request)
    assert desk.runner.run_next()
    job = get_job(desk.database, job_id)
    assert job.outputs is not None
    assert job.usage is not None
    assert job.degraded is not None
    assert [output["text"] for output in job.outputs] == ["w1 w2"] * 3
    assert (job.usage["completion_tokens"], job.usage["frames"], job.output_text) == (6, 8, "w1 w2")


def test_pixels_follow_where_fewer_frames_are_not_enough(desk: Desk) -> None:
    fits = FRAMES * WIDTH * HEIGHT // 7
    job_id = insert_job(desk.database, request=asking(f'{{"tokens": 3, "memory_error_above_pixels": {fits}}}'))
    assert desk.runner.run_next()
    job = get_job(desk.database, job_id)
    assert job.degraded is not None
    assert (job.status, job.attempts) == (JobStatus.COMPLETED, 1)
    assert [step["what"] for step in job.degraded["steps"]] == ["frames", "pixels", "frames"]
    assert job.degraded["pixels"]["seen"] <= fits


def test_a_job_that_may_not_be_degraded_fails_and_says_what_would_help(desk: Desk) -> None:
    request = asking('{"tokens": 3, "memory_error_above_frames": 9}', allow_degraded=False)
    job_id = insert_job(desk.database, request=request)
    assert desk.runner.run_next()
    job = get_job(desk.database, job_id)
    assert job.error is not None
    assert (job.status, job.error["code"], job.degraded, job.attempts) == (JobStatus.FAILED, "out_of_memory", None, 1)
    assert "allow_degraded" in job.error["message"]
    assert "16 frames" in job.error["message"]


def test_a_job_that_never_fits_fails_with_the_record_of_what_was_tried(desk: Desk) -> None:
    job_id = insert_job(desk.database, request=asking('{"tokens": 3, "memory_error_above_frames": 0}'))
    assert desk.runner.run_next()
    job = get_job(desk.database, job_id)
    assert job.error is not None
    assert job.degraded is not None
    assert (job.status, job.error["code"], job.attempts) == (JobStatus.FAILED, "out_of_memory", 1)
    assert job.degraded["frames"] == {"given": 16, "seen": 2}
    assert "Even 2 frames" in job.error["message"]


def test_memory_that_runs_out_behind_text_is_a_new_attempts_business(desk: Desk) -> None:
    job_id = insert_job(desk.database, request=asking('{"tokens": 9, "memory_error_at": 4}'))
    assert desk.runner.run_next()
    job = get_job(desk.database, job_id)
    assert (job.status, job.attempts, job.degraded) == (JobStatus.QUEUED, 1, None)
    assert job.error is not None
    assert job.error["code"] == "out_of_memory"


def test_a_text_that_does_not_fit_is_tried_again_as_before(desk: Desk) -> None:
    job_id = desk.submit({"tokens": 3, "memory_error_at": 1})
    assert desk.runner.run_next()
    assert get_job(desk.database, job_id).status == JobStatus.QUEUED


def test_others_go_on_while_a_job_steps_down(desk: Desk) -> None:
    other, thread = desk.start_and_see_text()
    job_id = insert_job(desk.database, request=asking('{"tokens": 3, "memory_error_above_frames": 3}'))
    assert desk.runner.run_next()
    assert get_job(desk.database, job_id).status == JobStatus.COMPLETED
    assert get_job(desk.database, other).status == JobStatus.IN_PROGRESS
    desk.held.cancel(other)
    thread.join(10)
    assert get_job(desk.database, other).attempts == 1


def test_a_cancel_between_two_steps_is_heard(desk: Desk) -> None:
    job_id = insert_job(desk.database, request=asking('{"tokens": 3, "memory_error_above_frames": 0}'))
    prepare, calls = desk.engine.prepare, []

    def cancel_at_the_second(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            desk.held.cancel(job_id)
        return prepare(*arguments, **options)

    desk.engine.prepare = cancel_at_the_second  # type: ignore[method-assign]
    assert desk.runner.run_next()
    assert len(calls) == 2
    # Nobody asked for it in the database, so it is given back.
    assert get_job(desk.database, job_id).status in (JobStatus.QUEUED, JobStatus.CANCELLED)


class TestOnARealModel:
    @pytest.fixture
    def engine(self) -> Iterator[GenerateEngine]:
        """The bundled model on an accelerator whose memory takes 80 patches of video a prompt."""
        torch.set_num_threads(1)
        checkpoint = load_checkpoint(CheckpointSettings(str(BUNDLED_CHECKPOINT), device="cpu"))
        take = checkpoint.model.model.visual.forward

        def with_little_memory(pixels: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            self.seen.append(len(pixels))
            if len(pixels) > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return take(pixels, *arguments, **options)

        self.seen: list[int] = []
        self.limit = 10**9
        checkpoint.model.model.visual.forward = with_little_memory
        engine = GenerateEngine(checkpoint)
        yield engine
        engine.close()

    @pytest.fixture
    def desk(
        self, quiet: Settings, database: Database, event_log: EventLog, tmp_path: Path, engine: GenerateEngine
    ) -> Iterator[Desk]:
        desk = Desk(quiet, database, event_log, engine)
        keep_media(desk, tmp_path)
        yield desk
        desk.close()

    def test_a_video_is_looked_at_with_fewer_frames_and_others_are_untouched(self, desk: Desk) -> None:
        content = [{"type": "image", "file_id": "file_i"}, {"type": "text", "text": "What color is it?"}]
        small = {"messages": [{"role": "user", "content": content}], "generation": {"max_new_tokens": 8}}
        whole = insert_job(desk.database, request=asking("What happens in the video?"))
        assert desk.runner.run_next()
        patches = max(self.seen)
        self.seen.clear()
        self.limit = patches // 2

        ids = [
            insert_job(desk.database, request=small),
            insert_job(desk.database, request=asking("What happens in the video?")),
            insert_job(desk.database, request=small),
        ]
        threads = [desk.start() for _ in ids]
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        first, job, last = (get_job(desk.database, id) for id in ids)
        assert [row.status for row in (first, job, last)] == [JobStatus.COMPLETED] * 3
        assert first.output_text == last.output_text != ""
        assert (first.degraded, last.degraded, get_job(desk.database, whole).degraded) == (None, None, None)
        assert job.degraded is not None
        assert job.degraded["frames"] == {"given": FRAMES, "seen": FRAMES // 2}
        assert job.usage is not None
        assert job.usage["frames"] == FRAMES // 2
        until(lambda: any(event.is_final for event in desk.event_log.read(job.id)), what="the last event")
        assert desk.text(job.id) == job.output_text != ""
