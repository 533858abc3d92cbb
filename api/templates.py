"""`/v1/templates`: chat templates and prompts, stored under names with versions."""

from typing import Any

from flask import Response, jsonify, request, url_for
from flask_openapi.blueprint import APIBlueprint
from pydantic import BaseModel, Field
from sqlalchemy import delete, exists, select
from sqlalchemy.orm import aliased

from api.auth import current_tenant
from api.documentation import BEARER, TEMPLATES, problems
from api.idempotency import once_for, replay
from api.paging import PageQuery, as_list, page
from api.schemas.answers import Deleted, TemplateAnswer, TemplatePage
from api.schemas.examples import request_body
from api.schemas.job_request import IdempotencyHeader
from api.schemas.templates import TemplateRef, TemplateRequest
from api.services import services
from api.template_check import check_stored
from api.template_store import find_template, store_template
from models.job_view import timestamp
from models.template import Template
from vlmq.errors import ErrorCode, VlmqError

blueprint = APIBlueprint("templates", __name__, url_prefix="/v1/templates", abp_tags=[TEMPLATES], abp_security=BEARER)


class TemplatePath(BaseModel):
    name: str = Field(description="its name")


class VersionPath(TemplatePath):
    version: int = Field(description="its version", ge=1, le=2**31 - 1)


class TemplatesQuery(PageQuery):
    name: str | None = Field(None, description="all versions of this one; otherwise the newest of each")


@blueprint.post(
    "",
    summary="Store a template",
    request_body=request_body(TemplateRequest),
    responses={201: TemplateAnswer, **problems(400, 409, 413, 415, 422)},
)
def create_template(header: IdempotencyHeader, body: TemplateRequest) -> Response:
    """Under a new name it is version 1, under a known one the next. A version never changes."""
    service, tenant = services(), current_tenant()
    once = once_for(header.idempotency_key, request.get_data())
    if (made := replay(service, tenant, once, Template)) is not None:
        return _created(made, replayed=True)
    check_stored(body)
    template, replayed = store_template(service, tenant, body, once)
    return _created(template, replayed=replayed)


@blueprint.get("", summary="List templates", responses={200: TemplatePage, **problems(400, 422)})
def list_templates(query: TemplatesQuery) -> dict[str, Any]:
    """The newest version of each, or all versions of one."""
    newer = aliased(Template)
    rows = select(Template).where(Template.tenant == current_tenant())
    if query.name is not None:
        rows = rows.where(Template.name == query.name)
    else:
        same = (newer.tenant == Template.tenant, newer.name == Template.name, newer.version > Template.version)
        rows = rows.where(~exists().where(*same))
    with services().database.read() as session:
        found, has_more = page(session, rows, Template.id, query, "tpl")
    return as_list([_view(template) for template in found], has_more=has_more)


@blueprint.get("/<name>", summary="Look at a template", responses={200: TemplateAnswer, **problems(404)})
def get_template(path: TemplatePath) -> dict[str, Any]:
    """Its newest version."""
    return _found(path.name, None)


@blueprint.get(
    "/<name>/versions/<int:version>",
    summary="Look at a version of a template",
    responses={200: TemplateAnswer, **problems(404, 422)},
)
def get_template_version(path: VersionPath) -> dict[str, Any]:
    """As it was stored."""
    return _found(path.name, path.version)


@blueprint.delete("/<name>", summary="Delete a template", responses={200: Deleted, **problems(404)})
def delete_template(path: TemplatePath) -> dict[str, Any]:
    """With all its versions. Jobs that were submitted with it have their own copy."""
    with services().database.write() as session:
        mine = (Template.tenant == current_tenant(), Template.name == path.name)
        if "\x00" in path.name or not session.scalars(delete(Template).where(*mine).returning(Template.id)).all():
            raise _not_found()
    return {"id": path.name, "object": "template", "deleted": True}


def _found(name: str, version: int | None) -> dict[str, Any]:
    if "\x00" in name:
        raise _not_found()
    # Not validated: what cannot be a name is not there.
    ref = TemplateRef.model_construct(name=name, version=version)
    with services().database.read() as session:
        return _view(find_template(session, current_tenant(), ref))


def _not_found() -> VlmqError:
    return VlmqError(ErrorCode.NOT_FOUND, "There is no template of this name.")


def _created(template: Template, *, replayed: bool) -> Response:
    response = jsonify(_view(template))
    response.status_code = 201
    response.headers["Location"] = url_for(
        "templates.get_template_version", name=template.name, version=template.version
    )
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _view(template: Template) -> dict[str, Any]:
    return {
        "id": template.id,
        "object": "template",
        "name": template.name,
        "version": template.version,
        "created_at": timestamp(template.created_at),
        **template.content,
    }
