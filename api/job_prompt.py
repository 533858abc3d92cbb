"""`/v1/jobs/{id}/prompt`: what the model was given to read."""

from typing import Any

from flask_openapi.blueprint import APIBlueprint

from api.auth import current_tenant
from api.documentation import BEARER, JOBS, problems
from api.job_store import load_job
from api.jobs import JobPath
from api.schemas.prompt_answers import JobPromptAnswer
from api.services import services
from models.job import Job
from vlmq.errors import ErrorCode, VlmqError

blueprint = APIBlueprint("job_prompt", __name__, url_prefix="/v1/jobs", abp_tags=[JOBS], abp_security=BEARER)

TOKENS = ("prompt_tokens", "image_tokens", "video_tokens")


@blueprint.get(
    "/<job_id>/prompt", summary="Look at a job's prompt", responses={200: JobPromptAnswer, **problems(404, 409)}
)
def get_prompt(path: JobPath) -> dict[str, Any]:
    """What the chat template made of the messages; there when the job is over."""
    job = load_job(services(), current_tenant(), path.job_id)
    if job.prompt is None:
        message = f"The job is {job.status}; its prompt is kept when it is over."
        if job.status.is_final:
            message = "The job ended before its prompt was rendered."
        raise VlmqError(ErrorCode.CONFLICT, message)
    return {"object": "prompt", "job_id": job.id, "text": job.prompt, "tokens": tokens_of(job)}


def tokens_of(job: Job) -> dict[str, int]:
    """What the prompt of this job takes of the context, and how much of it are media."""
    usage = job.usage or {}
    return {name: usage.get(name, 0) for name in TOKENS}
