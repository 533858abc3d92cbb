"""The GPU worker: loads its model, then runs the jobs of that model, many at once, until it is told to end."""

import os
import threading
from dataclasses import asdict
from typing import Any

import structlog
from celery.signals import worker_ready, worker_shutting_down

from engine.engine import Engine
from engine.load import load_engine
from engine.types import CheckpointSettings
from media.load import MediaLoader
from models.db import Database
from models.worker import WorkerState
from tasks.conversation import ConversationLoader
from tasks.held_jobs import HeldJobs
from tasks.loading_news import LoadingNews
from tasks.presence import Presence
from tasks.prompt_template import chat_renderer
from tasks.rings import Rings
from tasks.run_job import JobRunner
from tasks.video_sampling import SamplingRules
from vlmq.config import Settings
from vlmq.doorbell import RUN_JOB, Doorbell, gpu_queue, make_celery
from vlmq.errors import VlmqError
from vlmq.events import CANCEL_CHANNEL, EventLog, Subscriber, connect
from vlmq.files import FileStore
from vlmq.served_model import ServedModel

log = structlog.get_logger(__name__)

# The exit status for a model that cannot be loaded: starting again will not help (sysexits.h: EX_CONFIG).
EXIT_MODEL_FAILED = 78
EXIT_GRACE_S = 2.0
# How long jobs may take to go back when they may run no longer: to stop, to be written, to tell their streams.
GIVE_BACK_S = 4.0


def run(settings: Settings, model: str) -> int:
    """Run a worker for a served model until SIGTERM; returns the exit status."""
    served = settings.models[model]
    database = Database(settings.sqlalchemy_url)
    presence = Presence(database, settings, model=model)
    presence.start()
    media = MediaLoader(settings)
    try:
        engine = load_engine(
            checkpoint_settings(settings, served), chat_renderer(media.templates), on_progress=LoadingNews(presence)
        )
    except VlmqError as error:
        media.close()
        log.error("the model could not be loaded", model=model, reason=error.message)
        presence.set_state(WorkerState.FAILED, {"error": error.message})
        return EXIT_MODEL_FAILED
    log.info("the model is loaded", model=model, **describe(engine))
    try:
        return _consume(settings, model, database, presence, engine=engine, media=media)
    finally:
        presence.stop()
        media.close()
        engine.close()
        database.dispose()


def _consume(
    settings: Settings, model: str, database: Database, presence: Presence, *, engine: Engine, media: MediaLoader
) -> int:
    served = settings.models[model]
    celery = make_celery(settings)
    doorbell = Doorbell(celery)
    client = connect(settings.redis_url)
    event_log = EventLog(client, final_ttl_s=settings.timing.stream_ttl_s)
    held = HeldJobs(settings, presence.worker_id, database, engine, event_log)
    runner = JobRunner(
        settings=settings,
        model=model,
        worker_id=presence.worker_id,
        database=database,
        doorbell=doorbell,
        conversations=ConversationLoader(
            database,
            FileStore(settings.files_dir),
            media,
            SamplingRules(served, engine.description.video_defaults, settings.limits.max_video_frames),
            settings.limits.max_job_pixels,
        ),
        engine=engine,
        held=held,
        templates=media.templates,
    )
    stopping, given_back, ended = threading.Event(), threading.Event(), threading.Event()
    cancels = Subscriber(client, CANCEL_CHANNEL, on_message=held.cancel)

    rings = Rings(model, settings.timing.lease_s, runner, held, database, doorbell)

    @celery.task(name=RUN_JOB, shared=False)  # type: ignore[untyped-decorator]
    def run_job(job_id: str, passed_on: int = 0) -> None:
        rings.answer(job_id, passed_on)

    @worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def on_ready(**_: object) -> None:
        # Not before: the rings would be heard by those alone that are full.
        threading.Thread(target=rings.ring_for_what_waits, name="first rings", daemon=True).start()

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def on_shutdown(**_: object) -> None:
        # Called in a signal handler, where starting a thread or logging may meet a lock that its own thread holds.
        held.closed = True
        stopping.set()

    def give_back() -> None:
        changes = held.drain(settings.timing.drain_s)
        held.stop()
        given_back.set()
        # Last: a broker that is away takes seconds to say so, and the reconciler rings as well.
        for change in changes:
            runner.notices.ring_for(change)

    def drain() -> None:
        stopping.wait()
        presence.note_draining()
        threading.Thread(target=give_back, name="giving back", daemon=True).start()
        if not given_back.wait(settings.timing.drain_s + GIVE_BACK_S):
            log.warning("leaving while the database does not answer; the leases of the jobs will run out")
            os._exit(0)
        # Celery waits for its threads; one that is stuck in a download must not keep the process.
        if not ended.wait(EXIT_GRACE_S):
            log.warning("leaving while a thread is still busy; its job has been given back")
            presence.stop()
            os._exit(0)

    held.start()
    cancels.start()
    threading.Thread(target=drain, name="drain", daemon=True).start()
    worker = celery.Worker(
        hostname=f"{presence.worker_id}@vlmq",
        pool="threads",
        # One more than there are jobs, for prompts that are only to be rendered.
        concurrency=served.max_in_flight + 1,
        queues=[gpu_queue(model)],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        quiet=True,
    )
    presence.set_state(WorkerState.READY, describe(engine))
    try:
        worker.start()
        # Celery exits with 1 on Ctrl-C, which here is a request like SIGTERM.
        return 0 if stopping.is_set() else int(worker.exitcode or 0)
    finally:
        stopping.set()
        ended.set()
        cancels.stop()


def checkpoint_settings(settings: Settings, served: ServedModel) -> CheckpointSettings:
    """The engine's own settings, which know nothing of vlmq's."""
    return CheckpointSettings(
        checkpoint=served.checkpoint,
        engine=served.engine,
        revision=served.revision,
        device=served.device,
        dtype=served.dtype,
        device_map=served.device_map,
        attn_implementation=served.attn_implementation,
        quantization=served.quantization,
        adapter=served.adapter,
        adapter_revision=served.adapter_revision,
        warm_up=served.warm_up,
        max_model_len=served.max_model_len,
        modalities=served.modalities,
        token=None if settings.hf_token is None else settings.hf_token.get_secret_value(),
    )


def describe(engine: Engine) -> dict[str, Any]:
    """What the engine says of itself, as JSON."""
    description = asdict(engine.description)
    return description | {"modalities": sorted(description["modalities"])}
