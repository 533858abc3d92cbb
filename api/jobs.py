"""`/v1/jobs`: submit, look, list, cancel, delete."""

from datetime import UTC, datetime
from typing import Annotated, Any, cast

import structlog
from flask import Response, jsonify, request, url_for
from flask_openapi.blueprint import APIBlueprint
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field
from pydantic_core import PydanticCustomError
from sqlalchemy import select
from sqlalchemy.orm import defer

from api.auth import current_tenant
from api.documentation import BEARER, JOBS, problems
from api.idempotency import once_for, replay
from api.intake import draft
from api.job_follower import stream_response
from api.job_store import delete_job, find_job, load_job, store
from api.job_wait import wait_until_final
from api.json_body import StrictRequest
from api.paging import PageQuery, as_list, page
from api.prompt_source import look_up
from api.schemas.answers import Deleted, JobAnswer, JobPage
from api.schemas.examples import request_body
from api.schemas.job_request import IdempotencyHeader, JobRequest
from api.schemas.strict import Query
from api.services import Services, services
from models.job import Job, JobKind, JobStatus
from models.job_view import job_view
from models.lifecycle import request_cancel
from vlmq.events import REDIS_ERRORS, partial_text

log = structlog.get_logger(__name__)

blueprint = APIBlueprint("jobs", __name__, url_prefix="/v1/jobs", abp_tags=[JOBS], abp_security=BEARER)


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("range", "Must be within the years 1 to 9999 in UTC") from None


_Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]

# It names no content: of all 2xx with content, the interactive documentation asks for the first, and then waits for the
# job's end to show it.
_STREAM_INSTEAD = {
    "description": "With `Accept: text/event-stream`: the job's stream, as `GET /v1/jobs/{job_id}/events` gives it"
}


class JobPath(BaseModel):
    job_id: str = Field(description="job_…")


class WaitQuery(Query):
    wait: float = Field(0, ge=0, description="answer when the job is over, or after this many seconds")


class JobsQuery(PageQuery):
    status: list[JobStatus] = Field(default_factory=list, description="may be given several times")
    model: str | None = None
    created_after: _Moment | None = Field(None, description="RFC 3339, with its zone")
    created_before: _Moment | None = Field(None, description="RFC 3339, with its zone")


@blueprint.post(
    "",
    summary="Submit a job",
    request_body=request_body(JobRequest, with_files=True),
    responses={202: JobAnswer, 200: _STREAM_INSTEAD, **problems(400, 409, 413, 415, 422, 429)},
)
def submit_job(header: IdempotencyHeader, body: JobRequest) -> Response:
    """Stores the job and answers at once; `Location` is where it can be followed.

    With an `Idempotency-Key`, repeating the request answers with the job that the first one made, and says
    `Idempotency-Replayed: true`. With `Accept: text/event-stream` the answer is the job's stream, as
    `GET /v1/jobs/{id}/events` gives it; `Location` holds the id for coming back to it.
    """
    service, tenant, sent = services(), current_tenant(), cast(StrictRequest, request)
    once = once_for(header.idempotency_key, sent.fingerprint())
    if (made := replay(service, tenant, once, Job)) is not None:
        return _accepted(made, replayed=True)
    source = look_up(service, tenant, body)
    with source.naming_variables():
        job, replayed = store(service, tenant, draft(source.body, service.settings, sent.uploads), once)
    if not replayed:
        service.announcer.ring_job(job.model, job.id)
        log.info("job accepted", job=job.id, model=job.model)
    return _accepted(job, replayed=replayed)


@blueprint.get("/<job_id>", summary="Look at a job, or wait for it", responses={200: JobAnswer, **problems(404, 422)})
def get_job(path: JobPath, query: WaitQuery) -> dict[str, Any]:
    """While the job runs, `output_text` holds what there is of it so far (null while Redis is away)."""
    service, tenant = services(), current_tenant()
    job = load_job(service, tenant, path.job_id)
    if query.wait and not job.status.is_final:
        seconds = min(query.wait, service.settings.timing.max_wait_s)
        job = wait_until_final(service, tenant, path.job_id, seconds)
    view = job_view(job, with_request=True)
    if job.status is JobStatus.IN_PROGRESS:
        view["output_text"] = _text_so_far(service, job)
    return view


@blueprint.get("", summary="List jobs", responses={200: JobPage, **problems(400, 422)})
def list_jobs(query: JobsQuery) -> dict[str, Any]:
    """Newest first, without their requests."""
    mine = (Job.tenant == current_tenant(), Job.kind == JobKind.GENERATE)
    # What is not shown can be large.
    rows = select(Job).where(*mine).options(defer(Job.request), defer(Job.prompt), defer(Job.outputs))
    if query.status:
        rows = rows.where(Job.status.in_(query.status))
    if query.model is not None:
        rows = rows.where(Job.model == query.model)
    rows = _created_between(rows, query.created_after, query.created_before)
    with services().database.read() as session:
        found, has_more = page(session, rows, Job.id, query, "job")
    return as_list([job_view(job, in_list=True) for job in found], has_more=has_more)


@blueprint.post("/<job_id>/cancel", summary="Cancel a job", responses={200: JobAnswer, **problems(404)})
def cancel_job(path: JobPath) -> dict[str, Any]:
    """A queued job ends at once; a running one within a moment, with what it has so far. A job that is over stays."""
    service, tenant = services(), current_tenant()
    with service.database.write() as session:
        job = find_job(session, tenant, path.job_id, lock=True)
        change = request_cancel(session, job)
        session.refresh(job)
    if change is not None:
        service.announcer.changed(change)
    elif not job.status.is_final:
        service.announcer.cancel_requested(job.id)
    return job_view(job, with_request=True)


@blueprint.delete("/<job_id>", summary="Delete a job", responses={200: Deleted, **problems(404, 409)})
def remove_job(path: JobPath) -> dict[str, Any]:
    """Deletes a job that is over: its row, stream, deliveries, and inline files that no other job uses."""
    service = services()
    delete_job(service, current_tenant(), path.job_id)
    service.announcer.deleted(path.job_id)
    return {"id": path.job_id, "object": "job", "deleted": True}


def _accepted(job: Job, *, replayed: bool) -> Response:
    if request.accept_mimetypes.best_match(["application/json", "text/event-stream"]) == "text/event-stream":
        response = stream_response(services(), job, after=None, new=not replayed)
    else:
        response = jsonify(job_view(job, with_request=True))
        response.status_code = 202
    response.headers["Location"] = url_for("jobs.get_job", job_id=job.id)
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _created_between(rows: Any, after: datetime | None, before: datetime | None) -> Any:
    if after is not None:
        rows = rows.where(Job.created_at > after)
    return rows if before is None else rows.where(Job.created_at < before)


def _text_so_far(service: Services, job: Job) -> str | None:
    try:
        return partial_text(service.event_log.read(job.id), job.attempt)
    except REDIS_ERRORS as error:
        log.warning("could not read a job's partial text", job=job.id, error=str(error))
        return None
