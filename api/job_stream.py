"""`/v1/jobs/{id}/events`: follow a job's tokens."""

from flask import Response
from flask_openapi.blueprint import APIBlueprint
from pydantic import Field

from api.auth import current_tenant
from api.documentation import BEARER, JOBS, problems
from api.job_follower import STREAM, stream_response
from api.job_store import load_job
from api.jobs import JobPath
from api.schemas.strict import CachedSchema, Query
from api.services import Services, services
from vlmq.errors import VlmqError
from vlmq.events import REDIS_ERRORS, EventId

blueprint = APIBlueprint("job_stream", __name__, url_prefix="/v1/jobs", abp_tags=[JOBS], abp_security=BEARER)


class LastEventHeader(CachedSchema):
    last_event_id: str | None = Field(None, alias="Last-Event-ID", description="go on after this event")


class StreamQuery(Query):
    starting_after: str | None = Field(None, description="the same as Last-Event-ID, for those who cannot set it")


@blueprint.get(
    "/<job_id>/events",
    summary="Follow a job's tokens",
    responses={200: STREAM, 204: None, **problems(400, 404, 422)},
)
def follow_job(path: JobPath, header: LastEventHeader, query: StreamQuery) -> Response:
    """Replays the stream from its beginning, or after the given event, and follows it to the job's end."""
    service = services()
    job = load_job(service, current_tenant(), path.job_id)
    given = header.last_event_id or query.starting_after
    after = EventId.parse(given) if given else None
    if after is not None and job.status.is_final and _is_end(service, job.id, after):
        # What makes a browser stop coming back.
        return Response(status=204)
    return stream_response(service, job, after)


def _is_end(service: Services, job_id: str, after: EventId) -> bool:
    """Whether this is the stream's last event."""
    before = EventId(after.attempt, after.seq - 1) if after.seq else None
    try:
        events = service.event_log.read(job_id, after=before)
    except (VlmqError, *REDIS_ERRORS):
        return False
    return any(event.id == after and event.is_final for event in events)
