"""The light worker: delivers webhooks and reconciles, until it is told to end. It holds no model."""

import os
import threading

import structlog
from celery.signals import worker_ready, worker_shutting_down

from models.db import Database
from models.worker import WorkerState
from tasks.deliver_webhook import WebhookSender
from tasks.presence import Presence
from tasks.reconcile import Reconciler
from vlmq.config import Settings
from vlmq.doorbell import DELIVER_WEBHOOK, LIGHT_QUEUE, Doorbell, make_celery
from vlmq.events import connect
from vlmq.signing import tenant_secrets

log = structlog.get_logger(__name__)

# How long the rest of a shutdown may take after the sends have ended.
EXIT_GRACE_S = 2.0


def run(settings: Settings) -> int:
    """Run a light worker until SIGTERM or SIGINT; returns the exit status.

    Raises:
        ConfigurationError: webhooks could not be signed.
    """
    tenant_secrets(settings, "")
    database = Database(settings.sqlalchemy_url)
    presence = Presence(database, settings, model=None)
    celery = make_celery(settings)
    sender = WebhookSender(settings, database)
    client = connect(settings.redis_url)
    reconciler = Reconciler(settings, database, client, Doorbell(celery), name=presence.worker_id)
    stopping, ended = sender.stopping, threading.Event()

    @celery.task(name=DELIVER_WEBHOOK, shared=False)  # type: ignore[untyped-decorator]
    def deliver_webhook(_delivery_id: str) -> None:
        sender.deliver_due()

    @worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def on_ready(**_: object) -> None:
        presence.set_state(WorkerState.READY)

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def on_shutdown(**_: object) -> None:
        # Called in a signal handler, where starting a thread or logging may meet a lock that its own thread holds.
        stopping.set()

    def drain() -> None:
        stopping.wait()
        presence.note_draining()
        # Celery waits for its threads; a receiver that does not answer must not keep the process.
        if not ended.wait(settings.timing.drain_s + EXIT_GRACE_S):
            log.warning("leaving while webhooks are under way; they will be repeated when their leases expire")
            reconciler.resign()
            presence.stop()
            os._exit(0)

    def reconcile() -> None:
        while not stopping.wait(settings.timing.reconcile_s):
            try:
                reconciler.run_pass()
            except Exception:
                log.exception("a pass of the reconciler failed")
        reconciler.resign()

    reconciling = threading.Thread(target=reconcile, name="reconciler", daemon=True)
    presence.start()
    reconciling.start()
    threading.Thread(target=drain, name="drain", daemon=True).start()
    worker = celery.Worker(
        hostname=f"{presence.worker_id}@vlmq",
        pool="threads",
        concurrency=settings.light_threads,
        queues=[LIGHT_QUEUE],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        quiet=True,
    )
    try:
        worker.start()
        # Celery exits with 1 on Ctrl-C, which here is a request like SIGTERM.
        return 0 if stopping.is_set() else int(worker.exitcode or 0)
    finally:
        stopping.set()
        reconciling.join(EXIT_GRACE_S)
        ended.set()
        presence.stop()
        database.dispose()
