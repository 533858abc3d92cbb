"""The OpenAPI document: its frame, and the answers that many operations share."""

from typing import Any

from flask_openapi.models import OPENAPI3_REF_PREFIX
from flask_openapi.models.info import Info
from flask_openapi.models.security_scheme import SecurityScheme
from flask_openapi.models.tag import Tag
from flask_openapi.openapi import OpenAPI
from flask_openapi.types import ResponseDict

from api.schemas.problem import Problem, example

BEARER: list[dict[str, list[str]]] = [{"bearer": []}]

INFO = Info(
    title="vlmq",
    version="1",
    description="Asynchronous jobs for vision-language models: submit a chat with images and videos, follow its "
    "tokens, get the answer by polling, by server-sent events or by webhook.",
)
SECURITY_SCHEMES: dict[str, SecurityScheme | dict[str, Any]] = {
    "bearer": SecurityScheme(type="http", scheme="bearer", description="Needed when the service has API keys set.")
}

JOBS = Tag(name="jobs", description="Submit, follow, cancel.")
FILES = Tag(name="files", description="Upload once, use in many jobs.")
MODELS = Tag(name="models", description="What is served.")
TEMPLATES = Tag(name="templates", description="Chat templates and prompts under names, and what they render to.")
WEBHOOKS = Tag(name="webhooks", description="Messages to your receivers.")
OPERATIONS = Tag(name="operations", description="For those who run the service.")

_WORDS = {
    400: "The body or a position cannot be read",
    401: "No API key, or an unknown one",
    404: "Not there, or another tenant's",
    409: "The state does not allow it",
    413: "Too large",
    415: "Content type not taken",
    422: "A field is not valid; `error.param` names it",
    429: "Too many jobs are waiting; `Retry-After` says when to try again",
    500: "Our fault",
    503: "The database is away; `Retry-After` says when to try again",
}


class Documented(OpenAPI):
    """flask-openapi's application, without the validation answer that it adds to every operation."""

    def generate_spec_json(self) -> None:
        super().generate_spec_json()  # type: ignore[no-untyped-call]
        for path_item in self.spec_json["paths"].values():
            for operation in path_item.values():
                content = operation["responses"].get("422", {}).get("content", {})
                if "application/problem+json" not in content:
                    operation["responses"].pop("422", None)


def problems(*statuses: int) -> ResponseDict:
    """Documented errors; 401, 500 and 503 can come from everywhere behind a key."""
    return {
        status: {"description": _WORDS[status], "content": _problem(status)} for status in (*statuses, 401, 500, 503)
    }


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": f"{OPENAPI3_REF_PREFIX}/{Problem.__name__}"}
    return {"application/problem+json": {"schema": schema, "example": example(status)}}
