"""How far a model's loading is, for `/v1/models`."""

import threading
import time

import structlog

from engine.types import LoadingStage
from models.worker import WorkerState
from tasks.presence import Presence

log = structlog.get_logger(__name__)

# A download tells of every chunk; each word of it is a write to the database.
_EVERY_S = 0.5


class LoadingNews:
    """Called by the engine while it loads; safe from several threads, as downloads are."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._lock = threading.Lock()
        self._stage: LoadingStage | None = None
        self._told_at = 0.0

    def __call__(self, stage: LoadingStage, fraction: float | None) -> None:
        now = time.monotonic()
        with self._lock:
            is_new = stage != self._stage
            if not is_new and now - self._told_at < _EVERY_S:
                return
            self._stage, self._told_at = stage, now
            details = {"stage": stage, "progress": None if fraction is None else round(fraction, 3)}
            self._presence.set_state(WorkerState.LOADING, details)
        if is_new:
            log.info("the model is on its way", stage=stage)
