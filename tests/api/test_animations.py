"""Animated PNG and WebP at the door: images, and videos on request."""

import base64
import io
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from tests.api.bodies import errors, with_parts
from tests.media.bombs import animation, endless_animation
from tests.media.samples import image_bytes, moving, picture
from vlmq.config import Settings
from vlmq.limits import Limits

P = "messages.0.content.0"


@pytest.fixture(params=["PNG", "WEBP"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def still(kind: str) -> bytes:
    return image_bytes(picture(16, 16), kind)


def animated(kind: str) -> bytes:
    return animation(kind, moving(3, 16, 16), [100] * 3)


def inline(data: bytes) -> str:
    return base64.b64encode(data).decode()


def upload(client: FlaskClient, data: bytes) -> Any:
    return client.post("/v1/files", data={"file": (io.BytesIO(data), "a")}).json


def test_an_animation_is_taken_as_an_image_and_as_a_video_however_it_comes(client: FlaskClient, kind: str) -> None:
    data = animated(kind)
    file_id = upload(client, data)["id"]
    declared = {"PNG": ("image/png", "image/apng"), "WEBP": ("image/webp",)}[kind]
    urls = [{"url": f"data:{media_type};base64,{inline(data)}"} for media_type in declared]
    for source in ({"file_id": file_id}, {"base64": inline(data)}, *urls):
        body = with_parts({"type": "image"} | source, {"type": "video"} | source)
        assert client.post("/v1/jobs", json=body).status_code == 202


def test_a_still_image_is_refused_as_a_video_and_called_so(client: FlaskClient, kind: str) -> None:
    file_id = upload(client, still(kind))["id"]
    for source, status in (({"base64": inline(still(kind))}, 415), ({"file_id": file_id}, 422)):
        answer = client.post("/v1/jobs", json=with_parts({"type": "video"} | source))
        assert answer.json is not None
        (name,) = source
        assert (answer.status_code, answer.json["error"]["code"]) == (status, "unsupported_media_type")
        assert answer.json["error"]["param"] == f"{P}.{name}"
        assert "a still image" in answer.json["detail"]


def test_an_animation_is_held_to_the_limit_of_videos(settings: Settings, kind: str) -> None:
    limits = Limits(max_image_bytes=100, max_video_bytes=20_000)
    client = create_app(settings.model_copy(update={"limits": limits})).test_client()
    long = endless_animation(kind, 50)
    assert upload(client, long)["bytes"] == len(long) > 100
    assert upload(client, still(kind) + bytes(100))["error"]["code"] == "media_too_large"
    assert client.post("/v1/jobs", json=with_parts({"type": "video", "base64": inline(long)})).status_code == 202
    refused = errors(client, with_parts({"type": "image", "base64": inline(long)}))
    assert refused == (413, [("media_too_large", f"{P}.base64")])
