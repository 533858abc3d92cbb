"""The Flask application: every resource, one way of answering errors, and the documentation."""

import re
from typing import Any
from uuid import uuid4

import structlog
from flask import Request, Response, g, redirect, request

from api import (
    deliveries,
    health,
    job_prompt,
    job_stream,
    jobs,
    metrics,
    prompts,
    served_models,
    templates,
    uploaded_files,
)
from api.auth import authenticate
from api.documentation import INFO, SECURITY_SCHEMES, Documented
from api.errors import refuse_invalid, register_error_handlers
from api.json_body import StrictRequest, check_storable
from api.schemas.problem import Problem
from api.services import EXTENSION, make_services
from vlmq.config import Settings
from vlmq.errors import ErrorCode, VlmqError

# What anybody may read; everything else asks for a key when there are keys.
_OPEN = re.compile(r"/|/healthz|/readyz|/openapi\.json|/docs(/.*)?")
_RESOURCES = (
    jobs, job_stream, job_prompt, prompts, templates, uploaded_files, served_models, deliveries, health, metrics,
)  # fmt: skip
# Query parameters that are lists.
_REPEATABLE = frozenset({"status"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def create_app(settings: Settings) -> Documented:
    """An application with its own connections, made when they are first needed."""
    app = Documented(
        "api",
        info=INFO,
        security_schemes=SECURITY_SCHEMES,
        validation_error_model=Problem,
        validation_error_callback=refuse_invalid,
        doc_prefix="/docs",
        static_folder=None,
    )
    app.request_class = type(
        "Request", (StrictRequest,), {"limits": settings.limits, "spool_dir": settings.data_dir / "tmp"}
    )
    app.config["MAX_CONTENT_LENGTH"] = settings.limits.max_body_bytes
    app.url_map.strict_slashes = False
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions[EXTENSION] = make_services(settings)
    # First, so that a refused request is timed, too.
    metrics.count_requests(app)
    _before_and_after(app, settings)
    register_error_handlers(app)
    for resource in _RESOURCES:
        app.register_api(resource.blueprint)
    app.add_url_rule("/openapi.json", "openapi_document", lambda: app.api_doc)
    app.add_url_rule("/", "root", lambda: redirect("/docs/swagger"))
    app.add_url_rule("/docs", "docs", lambda: redirect("/docs/swagger"))
    return app


def _before_and_after(app: Documented, settings: Settings) -> None:
    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        structlog.contextvars.bind_contextvars(request=g.request_id)
        if not _OPEN.fullmatch(request.path):
            g.tenant = authenticate(request, settings)
        _check_query(request)

    @app.after_request
    def name(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        return response

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        structlog.contextvars.unbind_contextvars("request")


def _check_query(request: Request) -> None:
    values: dict[str, Any] = request.args.to_dict(flat=False)
    for name, texts in values.items():
        shown = name[:64]
        for text in (name, *texts):
            check_storable(text, shown)
        if len(texts) > 1 and name not in _REPEATABLE:
            raise VlmqError(ErrorCode.INVALID_REQUEST, f"{shown}: Given more than once.", param=shown)
        if request.method in ("POST", "DELETE") and request.url_rule is not None:
            message = f"{shown}: Unknown field; this takes no query parameters."
            raise VlmqError(ErrorCode.UNKNOWN_FIELD, message, param=shown)
