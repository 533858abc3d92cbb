"""Jobs in the hands of one worker, at the moments when something else happens to them."""

import io
import itertools
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from engine.engine import Engine
from engine.scripted import ScriptedEngine
from engine.types import CheckpointSettings, VideoDefaults
from media.load import MediaLoader
from models.claims import claim_next
from models.db import Database, utc_now
from models.delivery import Delivery
from models.file import File
from models.job import Job, JobStatus
from models.lifecycle import request_cancel
from tasks.conversation import ConversationLoader
from tasks.held_jobs import HeldJobs
from tasks.prompt_template import chat_renderer
from tasks.run_job import JobRunner
from tasks.video_sampling import SamplingRules
from tests.processes import until
from tests.tasks.rows import get_job, insert_job
from vlmq.config import Settings, Timing
from vlmq.doorbell import Doorbell, make_celery
from vlmq.events import EventLog
from vlmq.files import FileStore

LONG = {"tokens": 5000, "step_ms": 5}


class Desk:
    """A worker's inside on one thread a job, with leases that nobody looks at, and a scripted engine unless given."""

    def __init__(
        self, settings: Settings, database: Database, event_log: EventLog, engine: Engine | None = None
    ) -> None:
        self.database, self.event_log = database, event_log
        self._media = MediaLoader(settings)
        settled = CheckpointSettings("scripted", engine="scripted")
        self.engine = engine or ScriptedEngine(settled, chat_renderer(self._media.templates))
        self.held = HeldJobs(settings, "w1", database, self.engine, event_log)
        self.files = FileStore(settings.files_dir)
        limits = settings.limits
        rules = SamplingRules(settings.models["scripted"], VideoDefaults(), limits.max_video_frames)
        conversations = ConversationLoader(database, self.files, self._media, rules, limits.max_job_pixels)
        doorbell = Doorbell(make_celery(settings))
        self.runner = JobRunner(
            settings, "scripted", "w1", database, doorbell, conversations, self.engine, self.held, self._media.templates
        )
        self.held.start()

    def close(self) -> None:
        self.engine.close()
        self.held.stop()
        self._media.close()

    def submit(self, script: dict[str, Any], **values: Any) -> str:
        content = [{"type": "text", "text": json.dumps(script)}]
        request = {"messages": [{"role": "user", "content": content}], "generation": {"max_new_tokens": 10_000}}
        return insert_job(self.database, **({"request": request} | values))

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self.runner.run_next, daemon=True)
        thread.start()
        return thread

    def text(self, job_id: str) -> str:
        return "".join(event.data["text"] for event in self.event_log.read(job_id) if event.type == "delta")

    def start_and_see_text(self, **values: Any) -> tuple[str, threading.Thread]:
        job_id = self.submit(LONG, **values)
        thread = self.start()
        until(lambda: bool(self.text(job_id)), what="the first tokens")
        return job_id, thread


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def desk(settings: Settings, database: Database, event_log: EventLog) -> Iterator[Desk]:
    timing = Timing(lease_s=600, heartbeat_s=300, webhook_output_s=0.05)
    desk = Desk(settings.model_copy(update={"timing": timing}), database, event_log)
    yield desk
    desk.close()


def test_a_text_job_takes_two_statements(desk: Desk) -> None:
    job_id = desk.submit({"tokens": 3})
    statements: list[str] = []
    event.listen(desk.database.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    assert desk.runner.run_next()
    assert get_job(desk.database, job_id).status == JobStatus.COMPLETED
    # One to claim it and one to end it; the last is of this test.
    verbs = [statement.split()[0] for statement in statements if not statement.startswith("BEGIN")]
    assert verbs == ["UPDATE", "UPDATE", "SELECT"]


def test_a_job_whose_engine_is_closed_goes_back_unspent_and_is_not_called_cancelled(desk: Desk) -> None:
    job_id, thread = desk.start_and_see_text()
    desk.engine.close()
    thread.join(10)
    job = get_job(desk.database, job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


def test_an_engine_that_takes_no_more_work_costs_no_job_an_attempt(desk: Desk) -> None:
    job_id = desk.submit(LONG)
    desk.engine.close()
    assert desk.runner.run_next()
    assert not desk.runner.run_next()
    job = get_job(desk.database, job_id)
    assert (job.status, job.attempts, job.attempt) == (JobStatus.QUEUED, 0, 1)


def test_a_job_whose_cancel_meets_a_shutdown_ends_cancelled_with_its_text(desk: Desk) -> None:
    job_id, thread = desk.start_and_see_text()
    with desk.database.write() as session:
        request_cancel(session, session.get_one(Job, job_id))
    desk.held.drain(0)
    thread.join(10)
    job = get_job(desk.database, job_id)
    assert (job.status, job.finish_reason) == (JobStatus.CANCELLED, "cancelled")
    assert job.output_text
    until(lambda: any(event.is_final for event in desk.event_log.read(job_id)), what="the last event")
    assert desk.text(job_id) == job.output_text


def test_a_deadline_that_passes_before_the_media_are_loaded_is_told_like_any_other(desk: Desk) -> None:
    content = [{"type": "image", "file_id": "file_none"}]
    request = {"messages": [{"role": "user", "content": content}], "generation": {}}
    job_id = desk.submit({}, request=request, run_s=1e-6)
    assert desk.runner.run_next()
    job = get_job(desk.database, job_id)
    assert (job.status, job.finish_reason) == (JobStatus.FAILED, "deadline")
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == ("run_deadline_exceeded", "deadlines.run_s")


@pytest.fixture
def silent_url() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/image.png"


def asking_about(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}], "generation": {}}


def test_a_cancel_ends_a_download_that_hangs(desk: Desk, silent_url: str) -> None:
    job_id = desk.submit({}, request=asking_about({"type": "image", "url": silent_url}))
    thread = desk.start()
    until(lambda: any(event.type == "progress" for event in desk.event_log.read(job_id)), what="the download")
    with desk.database.write() as session:
        request_cancel(session, session.get_one(Job, job_id))
    desk.held.cancel(job_id)
    # Far below the download's own timeout of a minute.
    thread.join(20)
    assert not thread.is_alive()
    assert get_job(desk.database, job_id).status == JobStatus.CANCELLED


def test_the_run_deadline_ends_a_download_that_hangs(desk: Desk, silent_url: str) -> None:
    job_id = desk.submit({}, request=asking_about({"type": "image", "url": silent_url}), run_s=0.5)
    desk.start().join(20)
    job = get_job(desk.database, job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == (JobStatus.FAILED, "run_deadline_exceeded")


def test_the_pixels_of_all_images_count_together(desk: Desk) -> None:
    picture = io.BytesIO()
    Image.new("1", (7000, 7000)).save(picture, "PNG")
    stored = desk.files.put([picture.getvalue()], limit=10**6)
    with desk.database.write() as session:
        file = File(
            id="file_1", tenant="acme", sha256=stored.sha256, size=1, media_type="image/png", created_at=utc_now()
        )
        session.add(file)
    job_id = desk.submit({}, request=asking_about(*[{"type": "image", "file_id": "file_1"}] * 3))
    assert desk.runner.run_next()
    error = get_job(desk.database, job_id).error
    assert error is not None
    assert (error["code"], error["param"]) == ("image_too_large", "messages.0.content.2")
    assert "together" in error["message"]


def test_a_database_that_goes_away_while_the_media_are_looked_up_costs_no_attempt(desk: Desk) -> None:
    job_id = desk.submit({"tokens": 1}, request=asking_about({"type": "image", "file_id": "file_1"}))

    def break_off(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM files" in statement:
            raise OperationalError(statement, {}, ConnectionResetError())

    event.listen(desk.database.engine, "before_cursor_execute", break_off)
    assert desk.runner.run_next()
    event.remove(desk.database.engine, "before_cursor_execute", break_off)
    job = get_job(desk.database, job_id)
    assert (job.status, job.attempts, job.error) == (JobStatus.QUEUED, 0, None)


def test_a_claim_under_way_when_the_worker_drains_is_given_back_unspent(desk: Desk) -> None:
    job_id = desk.submit(LONG)
    waiting = threading.Event()
    with desk.database.write():
        event.listen(desk.database.engine, "checkout", lambda *_: waiting.set())
        thread = desk.start()
        assert waiting.wait(10)
        drain = threading.Thread(target=desk.held.drain, args=(0.3,), daemon=True)
        drain.start()
        until(lambda: desk.held.closed, what="the drain")
    drain.join(10)
    assert not drain.is_alive()
    job = get_job(desk.database, job_id)
    assert (job.status, job.attempts, job.attempt) == (JobStatus.QUEUED, 0, 1)
    thread.join(10)


class TestAJobThatHasLostAWorker:
    """`crashes` says so; it must have a worker to itself."""

    def test_waits_for_those_that_run_and_nothing_is_claimed_before_it(self, desk: Desk) -> None:
        first, running = desk.start_and_see_text()
        crashed = desk.submit({"tokens": 3}, crashes=1, releases=1, attempt=1)
        later = desk.submit({"tokens": 3})
        threads = [desk.start(), desk.start()]
        asked = threading.Event()
        event.listen(desk.database.engine, "commit", lambda _connection: asked.set())
        assert asked.wait(10)
        assert [get_job(desk.database, id_).status for id_ in (crashed, later)] == [JobStatus.QUEUED] * 2
        desk.held.cancel(first)
        for thread in (running, *threads):
            thread.join(10)
        ended = [get_job(desk.database, id_) for id_ in (first, crashed, later)]
        assert [job.status for job in ended] == [JobStatus.CANCELLED, JobStatus.COMPLETED, JobStatus.COMPLETED]
        times = [(job.started_at, job.finished_at) for job in ended]
        assert times == sorted(times)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times))  # type: ignore[operator]

    def test_keeps_others_from_beginning_while_it_runs(self, desk: Desk) -> None:
        crashed, running = desk.start_and_see_text(crashes=1, releases=1, attempt=1)
        other = desk.submit({"tokens": 3})
        thread = desk.start()
        told = len(desk.text(crashed))
        until(lambda: len(desk.text(crashed)) > told + 100, what="more text")
        assert get_job(desk.database, other).status == JobStatus.QUEUED
        desk.held.cancel(crashed)
        for each in (running, thread):
            each.join(10)
        assert get_job(desk.database, other).status == JobStatus.COMPLETED

    def test_is_not_waited_for_once_another_worker_has_taken_it(self, desk: Desk) -> None:
        _, running = desk.start_and_see_text()
        crashed = desk.submit({"tokens": 3}, crashes=1, releases=1, attempt=1)
        later = desk.submit({"tokens": 3})
        thread = desk.start()
        with desk.database.write() as session:
            taken = claim_next(session, model="scripted", worker_id="another", lease_s=600)
        assert taken is not None
        assert taken.id == crashed
        thread.join(10)
        assert get_job(desk.database, later).status == JobStatus.COMPLETED
        assert running.is_alive()
        desk.held.drain(0)
        running.join(10)

    def test_does_not_hold_up_a_worker_that_drains(self, desk: Desk) -> None:
        first, running = desk.start_and_see_text()
        crashed = desk.submit({"tokens": 3}, crashes=1, releases=1, attempt=1)
        thread = desk.start()
        desk.held.drain(0)
        for each in (running, thread):
            each.join(10)
            assert not each.is_alive()
        jobs = [get_job(desk.database, id_) for id_ in (first, crashed)]
        assert [(job.status, job.attempts) for job in jobs] == [(JobStatus.QUEUED, 0)] * 2


def test_a_stale_attempt_sends_no_webhooks(desk: Desk) -> None:
    webhook = {"url": "http://127.0.0.1:1/hook", "events": ["job.output"]}
    job_id, thread = desk.start_and_see_text(webhook=webhook)

    def output_rows() -> int:
        with desk.database.read() as session:
            return len(session.scalars(select(Delivery.id)).all())

    until(lambda: output_rows() > 0, what="partial text")
    with desk.database.write() as session:
        job = session.get_one(Job, job_id)
        job.attempt, job.worker_id, job.lease_expires_at = 2, "another", utc_now() + timedelta(hours=1)
    before, told = output_rows(), len(desk.text(job_id))
    until(lambda: len(desk.text(job_id)) > told + 200, what="more text")
    assert output_rows() == before
    desk.held.cancel(job_id)
    thread.join(10)
    assert get_job(desk.database, job_id).status == JobStatus.IN_PROGRESS


@contextmanager
def unreachable(url: str) -> Iterator[None]:
    """A PostgreSQL database that takes no connections and has dropped those it had."""
    name, admin = make_url(url).database, create_engine(make_url(url).set(database="postgres"))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :n"), {"n": name}
        )
        try:
            yield
        finally:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    admin.dispose()


class TestOnPostgreSQL:
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    def test_a_drain_ends_while_the_database_is_away_and_the_job_goes_back_later(
        self, desk: Desk, database_url: str
    ) -> None:
        job_id, thread = desk.start_and_see_text()
        with unreachable(database_url):
            ThreadPoolExecutor(1).submit(desk.held.drain, 0.1).result(15)
        thread.join(20)
        job = get_job(desk.database, job_id)
        assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)

    def test_an_end_is_written_when_the_database_is_back(self, desk: Desk, database_url: str) -> None:
        job_id, thread = desk.start_and_see_text()
        with unreachable(database_url):
            desk.held.cancel(job_id)
            until(lambda: desk.held.all()[0].result is not None, what="the engine's end")
        thread.join(20)
        job = get_job(desk.database, job_id)
        assert job.status == JobStatus.CANCELLED
        until(lambda: any(event.is_final for event in desk.event_log.read(job_id)), what="the last event")
        assert desk.text(job_id) == job.output_text

    def test_a_job_whose_end_cannot_be_written_is_left_to_its_lease(self, desk: Desk, database_url: str) -> None:
        desk.runner.write_patience_s = 0.3
        job_id = desk.submit(LONG)
        running = ThreadPoolExecutor(1).submit(desk.runner.run_next)
        until(lambda: bool(desk.text(job_id)), what="the first tokens")
        with unreachable(database_url):
            desk.held.cancel(job_id)
            with pytest.raises(OperationalError):
                running.result(20)
        assert desk.held.all() == []
        assert get_job(desk.database, job_id).status == JobStatus.IN_PROGRESS
