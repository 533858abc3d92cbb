from pathlib import Path

from sqlalchemy import select

from migrations.schema import upgrade
from models.db import Database
from models.worker import Worker, WorkerState, live_workers
from tasks.presence import Presence
from tests.tasks.rows import eventually
from vlmq.config import Settings, Timing

QUICK = Timing(lease_s=1.0, heartbeat_s=0.05)


def workers(database: Database) -> list[Worker]:
    with database.read() as session:
        return list(session.scalars(select(Worker)))


def test_a_worker_is_seen_with_its_state_until_it_leaves(settings: Settings, database: Database) -> None:
    presence = Presence(database, settings.model_copy(update={"timing": QUICK}), model="scripted")
    presence.start()
    eventually(lambda: workers(database))
    (worker,) = workers(database)
    assert (worker.id, worker.model, worker.state) == (presence.worker_id, "scripted", WorkerState.LOADING)
    presence.set_state(WorkerState.READY, {"device": "cpu"})
    presence.set_state(WorkerState.DRAINING)
    (worker,) = workers(database)
    assert (worker.state, worker.details) == (WorkerState.DRAINING, {"device": "cpu"})
    presence.stop()
    assert workers(database) == []


def test_a_workers_heart_beats_by_itself(settings: Settings, database: Database) -> None:
    presence = Presence(database, settings.model_copy(update={"timing": QUICK}), model=None)
    presence.start()
    eventually(lambda: workers(database))
    first = workers(database)[0].heartbeat_at
    eventually(lambda: workers(database)[0].heartbeat_at > first)
    with database.read() as session:
        assert [worker.id for worker in live_workers(session, silence_s=5)] == [presence.worker_id]
    presence.stop()


def test_a_worker_outlives_a_database_that_is_away(redis_url: str, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'later.db'}")
    presence = Presence(database, Settings(timing=QUICK, redis_url=redis_url, _env_file=None), model=None)
    presence.start()
    presence.set_state(WorkerState.READY)
    upgrade(database.engine)
    eventually(lambda: workers(database))
    assert workers(database)[0].state == WorkerState.READY
    presence.stop()
    assert workers(database) == []
    database.dispose()
