"""`/v1/prompts/render`: what a job would have the model read, without running it."""

from dataclasses import replace
from typing import Any

from flask_openapi.blueprint import APIBlueprint
from sqlalchemy import select

from api.auth import current_tenant
from api.connection import client_is_gone
from api.documentation import BEARER, TEMPLATES, problems
from api.intake import draft
from api.job_prompt import tokens_of
from api.job_store import delete_job, find_job, store
from api.job_wait import wait_until_final
from api.prompt_source import look_up
from api.schemas.examples import request_body
from api.schemas.job_request import Deadlines, JobRequest
from api.schemas.prompt_answers import RenderedPrompt
from api.services import Services, services
from models.job import Job, JobKind, JobStatus
from models.lifecycle import request_cancel
from vlmq.errors import ErrorCode, VlmqError
from vlmq.estimate import Sample, seconds_for

blueprint = APIBlueprint("prompts", __name__, url_prefix="/v1/prompts", abp_tags=[TEMPLATES], abp_security=BEARER)

# So many of the last jobs say how fast a model is.
_SAMPLES = 20


@blueprint.post(
    "/render",
    summary="Render a prompt",
    request_body=request_body(JobRequest),
    responses={200: RenderedPrompt, **problems(400, 413, 415, 422, 429)},
)
def render_prompt(body: JobRequest) -> dict[str, Any]:
    """Takes the body of a job, loads its media, renders and counts; nothing is generated and no job is kept.

    It ends when the client goes away.
    """
    service, tenant = services(), current_tenant()
    source = look_up(service, tenant, body)
    seconds = service.settings.timing.max_wait_s
    with source.naming_variables():
        drafted = draft(source.body, service.settings)
        drafted.body = drafted.body.model_copy(
            update={"webhook": None, "priority": 9, "deadlines": Deadlines(start_s=seconds, run_s=seconds)}
        )
        job, _ = store(service, tenant, replace(drafted, kind=JobKind.RENDER), None)
    service.announcer.ring_job(job.model, job.id)
    try:
        job = wait_until_final(service, tenant, job.id, seconds, is_given_up=client_is_gone)
        if job.status is JobStatus.COMPLETED:
            return _view(service, job)
        raise _failure(job)
    finally:
        _clear_away(service, tenant, job.id)


def _view(service: Services, job: Job) -> dict[str, Any]:
    usage, manifest, timings = job.usage or {}, job.manifest or {}, job.timings or {}
    room = int(manifest["max_new_tokens"])
    loading = timings.get("media", 0.0) + timings.get("prompt", 0.0)
    generating = seconds_for(_last_jobs(service, job), room)
    return {
        "object": "prompt",
        "model": job.model,
        "text": job.prompt,
        "tokens": tokens_of(job),
        "images": usage.get("images", 0),
        "frames": usage.get("frames", 0),
        "media": manifest.get("media", []),
        "max_new_tokens": room,
        "timings": timings,
        "estimate_s": None if generating is None else round(loading + generating, 3),
    }


def _last_jobs(service: Services, job: Job) -> list[Sample]:
    """How fast this tenant's last jobs of the same model were."""
    rows = (
        select(Job.timings, Job.usage)
        .where(Job.tenant == job.tenant, Job.model == job.model, Job.kind == JobKind.GENERATE)
        .where(Job.status == JobStatus.COMPLETED)
        .order_by(Job.id.desc())
        .limit(_SAMPLES)
    )
    with service.database.read() as session:
        found = [(timings or {}, usage or {}) for timings, usage in session.execute(rows)]
    return [
        Sample(timings["first_token"], timings["generation"], usage["completion_tokens"])
        for timings, usage in found
        if "first_token" in timings and "generation" in timings and usage.get("completion_tokens")
    ]


def _failure(job: Job) -> VlmqError:
    if job.status is JobStatus.FAILED and job.error is not None and job.error["code"] != "run_deadline_exceeded":
        return VlmqError(ErrorCode(job.error["code"]), job.error["message"], param=job.error["param"])
    return VlmqError(ErrorCode.UNAVAILABLE, "No worker rendered the prompt in time; try again in a moment.")


def _clear_away(service: Services, tenant: str, job_id: str) -> None:
    """Nobody waits for it any more; what a worker still holds is deleted by the reconciler."""
    with service.database.write() as session:
        change = request_cancel(session, find_job(session, tenant, job_id))
        session.flush()
        job = find_job(session, tenant, job_id)
        session.refresh(job)
    if change is None and not job.status.is_final:
        service.announcer.cancel_requested(job_id)
        return
    delete_job(service, tenant, job_id)
    service.announcer.deleted(job_id)
