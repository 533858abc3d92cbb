"""Requests to submit, and what is wrong with them."""

import base64
from typing import Any

from flask.testing import FlaskClient

from tests.api.stand_in import png

BODY: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
PNG = base64.b64encode(png()).decode()
VIDEO = {"type": "video", "url": "https://example.com/a.mp4"}


def with_parts(*parts: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": list(parts)}]}


def errors(client: FlaskClient, body: dict[str, Any], path: str = "/v1/jobs") -> tuple[int, list[tuple[str, str]]]:
    """The status of a refusal, and the code and the field of each error."""
    # JSON knows no infinity, but 1e999 is one when it is read.
    text = client.application.json.dumps(body).replace("Infinity", "1e999")
    answer = client.post(path, data=text, content_type="application/json")
    assert answer.content_type == "application/problem+json", answer.get_data(as_text=True)
    found = answer.json
    assert found is not None
    return answer.status_code, [(item["code"], item["param"]) for item in found.get("errors", [found["error"]])]
