"""`/healthz`: this process lives. `/readyz`: jobs can be taken and run."""

from collections.abc import Callable, Sequence
from typing import Any

from flask import Response, jsonify
from flask_openapi.blueprint import APIBlueprint
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from api.documentation import OPERATIONS
from api.services import Services, services
from migrations.schema import is_current
from models.worker import Worker, WorkerState, live_workers
from vlmq.events import REDIS_ERRORS

blueprint = APIBlueprint("health", __name__, abp_tags=[OPERATIONS])


class Alive(BaseModel):
    status: str


class Check(BaseModel):
    ok: bool
    detail: str


class Readiness(BaseModel):
    ready: bool
    checks: dict[str, Check]


@blueprint.get("/healthz", summary="Whether this process lives", responses={200: Alive})
def healthz() -> dict[str, str]:
    """Asks nobody else."""
    return {"status": "ok"}


@blueprint.get("/readyz", summary="Whether jobs can be taken and run", responses={200: Readiness, 503: Readiness})
def readyz() -> Response:
    """The database with its current schema, Redis, a worker for each served model, and one that delivers webhooks."""
    service = services()
    checks = {
        "database": _check(lambda: _database(service), SQLAlchemyError),
        "redis": _check(lambda: _redis(service), *REDIS_ERRORS),
    }
    try:
        with service.database.read() as session:
            workers: Sequence[Worker] = live_workers(session, silence_s=service.settings.timing.lease_s)
    except SQLAlchemyError:
        workers = []
    for name in service.settings.models:
        checks[f"model {name}"] = _worker_check([worker for worker in workers if worker.model == name])
    checks["light worker"] = _worker_check([worker for worker in workers if worker.model is None])
    ready = all(check["ok"] for check in checks.values())
    response = jsonify({"ready": ready, "checks": checks})
    response.status_code = 200 if ready else 503
    return response


def _check(look: Callable[[], str | None], *errors: type[Exception]) -> dict[str, Any]:
    try:
        trouble = look()
    except errors:
        trouble = "cannot be reached"
    return {"ok": trouble is None, "detail": trouble or "ok"}


def _database(service: Services) -> str | None:
    return None if is_current(service.database.engine) else "its schema is not the current one; run `vlmq db upgrade`"


def _redis(service: Services) -> str | None:
    service.redis.ping()
    return None


def _worker_check(workers: Sequence[Worker]) -> dict[str, Any]:
    ready = any(worker.state is WorkerState.READY for worker in workers)
    states = ", ".join(sorted({worker.state.value for worker in workers}))
    return {"ok": ready, "detail": "ok" if ready else states or "no live worker"}
