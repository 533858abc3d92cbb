"""`/v1/models`: what is served, joined with the workers that hold it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask_openapi.blueprint import APIBlueprint
from pydantic import BaseModel, Field

from api.documentation import BEARER, MODELS, problems
from api.paging import as_list
from api.schemas.model_answers import ModelAnswer, ModelPage
from api.services import services
from models.worker import Worker, WorkerState, failed_workers, live_workers
from vlmq.errors import ErrorCode, VlmqError
from vlmq.served_model import ServedModel

blueprint = APIBlueprint("models", __name__, url_prefix="/v1/models", abp_tags=[MODELS], abp_security=BEARER)

# A model is as well as the best of its workers.
_BEST_FIRST = (WorkerState.READY, WorkerState.LOADING, WorkerState.FAILED)


class ModelPath(BaseModel):
    name: str = Field(description="may contain slashes")


@blueprint.get("", summary="List the served models", responses={200: ModelPage, **problems()})
def list_models() -> dict[str, Any]:
    """With the state of each: ready when a live worker holds it, loading with its progress, failed with the reason."""
    live, failed = _workers()
    return as_list([_view(name, served, live, failed) for name, served in services().settings.models.items()])


@blueprint.get("/<path:name>", summary="Look at a served model", responses={200: ModelAnswer, **problems(404)})
def get_model(path: ModelPath) -> dict[str, Any]:
    """Its state, and what its engine says of itself."""
    served = services().settings.models.get(path.name)
    if served is None:
        message = "This model is not served; GET /v1/models lists those that are."
        raise VlmqError(ErrorCode.MODEL_NOT_FOUND, message, status=404)
    return _view(path.name, served, *_workers())


def _workers() -> tuple[list[Worker], list[Worker]]:
    """Those that live, and those that failed, which ended when they had said why."""
    service = services()
    with service.database.read() as session:
        return live_workers(session, silence_s=service.settings.timing.lease_s), failed_workers(session)


def _view(name: str, served: ServedModel, live: Sequence[Worker], failed: Sequence[Worker]) -> dict[str, Any]:
    holders = [worker for worker in live if worker.model == name]
    told = [*holders, *(worker for worker in failed if worker.model == name)]
    best = next((worker for state in _BEST_FIRST for worker in told if worker.state is state), None)
    state, details = (None, {}) if best is None else (best.state, best.details)
    return {
        "id": name,
        "object": "model",
        "state": "unavailable" if state is None else state.value,
        "stage": details.get("stage") if state is WorkerState.LOADING else None,
        "progress": details.get("progress") if state is WorkerState.LOADING else None,
        "error": details.get("error") if state is WorkerState.FAILED else None,
        "checkpoint": _without_folders(served.checkpoint),
        "revision": served.revision,
        "engine": served.engine,
        "quantization": served.quantization,
        "adapter": None if served.adapter is None else _without_folders(served.adapter),
        "modalities": sorted(served.modalities),
        "max_in_flight": served.max_in_flight,
        "default_num_frames": served.default_num_frames,
        "max_frames": served.max_frames,
        "workers": len(holders),
        "details": None if best is None else _shown(best.details),
    }


def _shown(details: dict[str, Any]) -> dict[str, Any]:
    if isinstance(details.get("checkpoint"), str):
        return details | {"checkpoint": _without_folders(details["checkpoint"])}
    return details


def _without_folders(checkpoint: str) -> str:
    """A repository's name as it is; of a folder on the server, its last part only."""
    path = Path(checkpoint)
    return path.name if path.is_absolute() or checkpoint.startswith((".", "~")) else checkpoint
