"""A model's way to being ready, as others see it: a real worker, and a hub that pauses or refuses."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from models.db import Database
from models.worker import Worker, WorkerState
from tasks.gpu_worker import EXIT_MODEL_FAILED
from tasks.loading_news import LoadingNews
from tasks.presence import Presence
from tests.hub import Hub
from tests.processes import GPU_WORKER, Part, until
from vlmq.config import BUNDLED_CHECKPOINT, Settings
from vlmq.served_model import ServedModel

START_S = 90.0


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def settings(settings: Settings) -> Settings:
    served = ServedModel(checkpoint="org/vlm", device="cpu", quantization="quanto-int8")
    return settings.model_copy(update={"models": {"vlm": served}})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub({"org/vlm": BUNDLED_CHECKPOINT})
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with hub.running():
        yield hub


def the_worker(database: Database) -> Worker | None:
    with database.read() as session:
        return session.scalar(select(Worker))


def test_a_worker_that_downloads_says_how_far_it_is_and_is_ready_in_the_end(
    settings: Settings, database: Database, hub: Hub, tmp_path: Path
) -> None:
    hub.resumed.clear()
    part = Part("gpu worker", GPU_WORKER.format("vlm"), settings, tmp_path).start()
    try:
        until(hub.paused.is_set, START_S, what="the download's middle")

        def downloading() -> bool:
            worker = the_worker(database)
            return worker is not None and worker.details.get("stage") == "downloading"

        until(downloading, what="the stage")
        worker = the_worker(database)
        assert worker is not None
        assert worker.state == WorkerState.LOADING
        assert worker.details["progress"] is None or 0 <= worker.details["progress"] < 1
        hub.resumed.set()

        def ready() -> bool:
            worker = the_worker(database)
            return worker is not None and worker.state == WorkerState.READY

        until(ready, START_S, what=f"a ready worker; {part.log()}")
        worker = the_worker(database)
        assert worker is not None
        assert worker.details["quantization"] == "quanto-int8"
        assert worker.details["weight_bytes"] < worker.details["weight_bytes_before"] / 2
    finally:
        part.kill()


def test_a_worker_whose_model_is_refused_leaves_the_reason_behind(
    settings: Settings, database: Database, hub: Hub, tmp_path: Path
) -> None:
    hub.gated.add("org/vlm")
    part = Part("gpu worker", GPU_WORKER.format("vlm"), settings, tmp_path).start()
    assert part.wait(START_S) == EXIT_MODEL_FAILED, part.log()
    worker = the_worker(database)
    assert worker is not None
    assert worker.state == WorkerState.FAILED
    assert worker.details["error"].startswith("The checkpoint org/vlm is gated: ask for access on its page")


def test_many_words_are_few_writes_and_a_new_stage_is_told_at_once(settings: Settings, database: Database) -> None:
    presence = Presence(database, settings, model="vlm")
    told: list[dict[str, object]] = []
    write = presence.set_state

    def counted(state: WorkerState, details: dict[str, object] | None = None) -> None:
        told.append(details or {})
        write(state, details)

    presence.set_state = counted  # type: ignore[method-assign]
    news = LoadingNews(presence)
    for number in range(1000):
        news("downloading", number / 1000)
    news("loading", 0.0)
    assert len(told) < 20
    assert told[0] == {"stage": "downloading", "progress": 0.0}
    assert told[-1] == {"stage": "loading", "progress": 0.0}
    worker = the_worker(database)
    assert worker is not None
    assert worker.details == told[-1]
