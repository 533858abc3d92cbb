"""What the documents send with curl is a body that the API takes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, TypeAdapter

from api.schemas.content import Message
from api.schemas.job_request import JobRequest
from api.schemas.templates import TemplateRequest

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODELS: dict[str, type[BaseModel]] = {"jobs": JobRequest, "templates": TemplateRequest, "prompts/render": JobRequest}
# Short for whatever stands before it on the page.
ELLIPSIS = ('"messages": […]', '"messages": [{"role": "user", "content": "hello"}]')
COMMAND = re.compile(r"curl [^\n]*?/v1/(jobs|templates|prompts/render) .*?(?:-d '|-F 'job=)(\{.*?\})'", re.DOTALL)


def bodies() -> Iterator[tuple[str, str, str]]:
    """The page's name, the resource, and the JSON."""
    for document in DOCUMENTS:
        for command in re.split(r"^(?=curl )", document.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if found := COMMAND.match(command):
                yield document.name, found[1], found[2].replace(*ELLIPSIS)


BODIES = list(bodies())


def test_the_documents_have_bodies() -> None:
    assert len(BODIES) >= 12
    assert {path for _, path, _ in BODIES} == set(MODELS)


@pytest.mark.parametrize(("document", "path", "body"), BODIES)
def test_a_body_in_a_document_is_valid(document: str, path: str, body: str) -> None:
    MODELS[path].model_validate(json.loads(body))


def test_the_content_parts_in_the_documents_are_valid() -> None:
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    parts = re.findall(r'^\{"type": "(?:image|video)".*\}$', text, re.MULTILINE)
    assert len(parts) >= 3
    for part in parts:
        TypeAdapter(Message).validate_python({"role": "user", "content": [json.loads(part)]})
