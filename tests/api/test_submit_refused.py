import base64
import copy
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient
from sqlalchemy import select

from api.app import create_app
from api.services import Services
from models.file import File
from models.job import Job
from tests.api.bodies import BODY, PNG, VIDEO, errors, with_parts
from tests.api.stand_in import MP4
from vlmq.config import Settings, Webhooks
from vlmq.limits import Limits
from vlmq.served_model import ServedModel


def with_fields(path: str, value: Any) -> dict[str, Any]:
    body = copy.deepcopy(BODY)
    at = body
    *folders, name = path.split(".")
    for folder in folders:
        at = at.setdefault(folder, {})
    at[name] = value
    return body


P = "messages.0.content.0"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (with_parts(), "invalid_request", "messages.0.content"),
        (BODY | {"messages": []}, "invalid_request", "messages"),
        (with_parts({"type": "audio"}), "invalid_request", f"{P}.type"),
        (with_parts({"text": "no type"}), "invalid_request", f"{P}.type"),
        (with_parts("just text"), "invalid_request", P),
        (with_parts({"type": "text", "text": "a", "b": 1}), "unknown_field", f"{P}.b"),
        (with_parts({"type": "text", "text": 5}), "invalid_request", f"{P}.text"),
        (with_parts({"type": "image"}), "invalid_request", P),
        (with_parts({"type": "image", "url": "https://a.com", "file_id": "f"}), "invalid_request", P),
        (with_parts({"type": "image", "path": "/etc/passwd"}), "invalid_request", f"{P}.path"),
        (with_parts({"type": "image", "upload": "a"}), "invalid_request", f"{P}.upload"),
        (with_parts(VIDEO | {"num_frames": 2, "fps": 1}), "invalid_request", f"{P}.fps"),
        (with_parts(VIDEO | {"num_frames": 0}), "invalid_request", f"{P}.num_frames"),
        (with_parts(VIDEO | {"fps": 1e6}), "invalid_request", f"{P}.fps"),
        (with_parts({"type": "image", "base64": "!!!"}), "invalid_request", f"{P}.base64"),
        (with_parts({"type": "image", "base64": PNG[:-2]}), "invalid_request", f"{P}.base64"),
        (with_parts({"type": "image", "base64": ""}), "image_invalid", f"{P}.base64"),
        (with_parts({"type": "image", "url": f"data:image/jpeg;base64,{PNG}"}), "invalid_request", f"{P}.url"),
        (with_parts({"type": "image", "url": "data:image/png,abc"}), "invalid_request", f"{P}.url"),
        (with_parts({"type": "image_url", "image_url": {"url": "x"}}), "url_blocked", f"{P}.image_url.url"),
        (with_parts({"type": "image_url", "image_url": "x"}), "invalid_request", f"{P}.image_url"),
        (with_fields("model", "gpt-7"), "model_not_found", "model"),
        (with_fields("n", 10**9), "unknown_field", "n"),
        (with_fields("stream", True), "unknown_field", "stream"),
        (with_fields("trust_remote_code", True), "unknown_field", "trust_remote_code"),
        (with_fields("generation.trust_remote_code", True), "unknown_field", "generation.trust_remote_code"),
        (with_fields("priority", 10), "invalid_request", "priority"),
        (with_fields("priority", True), "invalid_request", "priority"),
        (with_fields("priority", "5"), "invalid_request", "priority"),
        (with_fields("generation.max_new_tokens", 10**9), "invalid_request", "generation.max_new_tokens"),
        (with_fields("generation.max_new_tokens", 0), "invalid_request", "generation.max_new_tokens"),
        (with_fields("generation.min_new_tokens", 10**9), "invalid_request", "generation.min_new_tokens"),
        (
            with_fields("generation", {"min_new_tokens": 5, "max_new_tokens": 4}),
            "invalid_request",
            "generation.min_new_tokens",
        ),
        (with_fields("generation", {"do_sample": True, "temperature": 0}), "invalid_request", "generation.temperature"),
        (with_fields("generation.temperature", 1e999), "invalid_request", "generation.temperature"),
        (with_fields("generation.temperature", 1e-40), "invalid_request", "generation.temperature"),
        (with_fields("generation.temperature", 0.009), "invalid_request", "generation.temperature"),
        (with_fields("generation.repetition_penalty", 1e-40), "invalid_request", "generation.repetition_penalty"),
        (with_fields("generation.top_p", 0), "invalid_request", "generation.top_p"),
        (with_fields("generation.seed", 2**63), "invalid_request", "generation.seed"),
        (with_fields("generation.stop", [""]), "invalid_request", "generation.stop.0"),
        (with_fields("generation.logprobs", 1), "invalid_request", "generation.logprobs"),
        (with_fields("allow_degraded", "yes"), "invalid_request", "allow_degraded"),
        (with_fields("deadlines.start_s", 0), "invalid_request", "deadlines.start_s"),
        (with_fields("metadata", {str(n): "" for n in range(17)}), "invalid_request", "metadata"),
        (with_fields("metadata", {"a": 1}), "invalid_request", "metadata.a"),
        (with_fields("metadata", {"a": "x" * 513}), "invalid_request", "metadata.a"),
        (
            with_fields("webhook", {"url": "https://e.com", "events": ["job.unknown"]}),
            "invalid_request",
            "webhook.events.0",
        ),
        (with_fields("webhook", {"url": "ftp://e.com"}), "url_blocked", "webhook.url"),
        (with_fields("webhook", {"url": "https://e.com", "secret": "x"}), "unknown_field", "webhook.secret"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(client: FlaskClient, body: dict[str, Any], code: str, param: str) -> None:
    assert errors(client, body) == (422, [(code, param)])


@pytest.mark.parametrize(
    ("data", "looks_like"),
    [
        (b"<!DOCTYPE html><html></html>", "text/html"),
        (b"%PDF-1.7", "application/pdf"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        (b"II*\x00" + b"\x00" * 20, "image/tiff"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "application/postscript"),
        (b"8BPS\x00\x01", "image/vnd.adobe.photoshop"),
        (b"SIMPLE  =                    T", "image/fits"),
        (MP4, "video/mp4"),
        (b"\x00\x01\x02\x03", "unknown"),
    ],
)
def test_bytes_that_are_no_image_are_refused_with_what_they_look_like(
    client: FlaskClient, data: bytes, looks_like: str
) -> None:
    part = {"type": "image", "base64": base64.b64encode(data).decode()}
    answer = client.post("/v1/jobs", json=with_parts(part))
    assert answer.json is not None
    assert answer.status_code == 415
    assert looks_like in answer.json["detail"]
    assert "PNG" in answer.json["detail"]


@pytest.mark.parametrize("value", [5, None, {}, True])
def test_content_and_stop_say_that_they_take_text_or_a_list(client: FlaskClient, value: Any) -> None:
    body = BODY | {"messages": [{"role": "user", "content": value}], "generation": {"stop": {}}}
    answer = client.post("/v1/jobs", json=body)
    assert answer.json is not None
    assert [(error["param"], error["message"]) for error in answer.json["errors"]] == [
        ("messages.0.content", "messages.0.content: Takes text, or a list of parts."),
        ("generation.stop", "generation.stop: Takes text, or a list of texts."),
    ]


def test_several_errors_are_all_told_the_first_in_front(client: FlaskClient) -> None:
    body = BODY | {"generation": {"temperature": 9, "blub": 1}, "priority": -1}
    answer = client.post("/v1/jobs", json=body).json
    assert answer is not None
    assert [error["param"] for error in answer["errors"]] == ["generation.temperature", "generation.blub", "priority"]
    assert answer["error"] == answer["errors"][0]


def test_an_unknown_model_is_told_with_those_that_are_served(client: FlaskClient) -> None:
    answer = client.post("/v1/jobs", json=BODY | {"model": "gpt-7"}).json
    assert answer is not None
    assert "scripted" in answer["detail"]


def test_limits_count_over_the_whole_request(settings: Settings) -> None:
    limits = Limits(max_images=2, max_videos=1, max_text_chars=10, max_messages=2)
    client = create_app(settings.model_copy(update={"limits": limits})).test_client()
    image = {"type": "image", "base64": PNG}
    message = {"role": "user", "content": [image, {"type": "image", "url": "http://e.com/a.png"}, VIDEO]}
    text = {"role": "user", "content": "eleven char"}
    status, found = errors(client, {"model": "scripted", "messages": [message, message, text]})
    assert status == 422
    assert found == [("invalid_request", "messages")] * 4


def test_texts_for_templates_are_held_to_the_limit_of_text(settings: Settings) -> None:
    limits = Limits(max_text_chars=100)
    client = create_app(settings.model_copy(update={"limits": limits})).test_client()
    for kwargs in ({"a": ["x" * 60, "y" * 60]}, {"x" * 120: None}):
        assert errors(client, BODY | {"template_kwargs": kwargs}) == (422, [("invalid_request", "template_kwargs")])
    template = {"name": "t", "kind": "prompt", "messages": [{"role": "user", "content": "{{ a }}"}]}
    client.post("/v1/templates", json=template | {"variables": {"a": {"type": "string"}}})
    body = {"model": "scripted", "template": {"name": "t"}, "variables": {"a": "x" * 120}}
    assert errors(client, body) == (422, [("invalid_request", "variables")])


def test_an_image_above_its_limit_is_too_large(settings: Settings) -> None:
    client = create_app(settings.model_copy(update={"limits": Limits(max_image_bytes=20)})).test_client()
    assert errors(client, with_parts({"type": "image", "base64": PNG})) == (413, [("media_too_large", f"{P}.base64")])


def test_a_modality_that_the_model_lacks_is_refused(settings: Settings) -> None:
    served = ServedModel(checkpoint="scripted", engine="scripted", modalities=frozenset({"text", "image"}))
    client = create_app(settings.model_copy(update={"models": {"scripted": served}})).test_client()
    assert errors(client, with_parts(VIDEO)) == (422, [("unsupported_modality", "messages")])


def test_a_webhook_without_a_signing_secret_is_refused(settings: Settings) -> None:
    client = create_app(settings.model_copy(update={"webhooks": Webhooks()})).test_client()
    answer = client.post("/v1/jobs", json=BODY | {"webhook": {"url": "https://example.com/hook"}})
    assert answer.status_code == 422
    assert answer.json is not None
    assert answer.json["error"]["param"] == "webhook"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "http://127.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::127.0.0.1]/",
        "http://100.64.0.1/",
        "http://127.0.0.1:6666\\@1.1.1.1/",
        "http://user:password@example.com/",
        "http://example.com/\r\nX-Evil: 1",
        "http://example.com:8080/",
        "gopher://example.com/",
        "//example.com/a.png",
        "/etc/passwd",
    ],
)
def test_hostile_urls_are_blocked_at_the_door(settings: Settings, url: str) -> None:
    client = create_app(settings.model_copy(update={"dev_allow_private_urls": False})).test_client()
    assert errors(client, with_parts({"type": "image", "url": url})) == (422, [("url_blocked", f"{P}.url")])
    assert errors(client, BODY | {"webhook": {"url": url}}) == (422, [("url_blocked", "webhook.url")])


def test_webhooks_go_to_https_only(settings: Settings) -> None:
    client = create_app(settings.model_copy(update={"dev_allow_private_urls": False})).test_client()
    refused = errors(client, BODY | {"webhook": {"url": "http://example.com/hook"}})
    assert refused == (422, [("url_blocked", "webhook.url")])


def test_nothing_is_stored_for_a_refused_request(client: FlaskClient, service: Services, redis_url: str) -> None:
    client.post("/v1/jobs", json=with_parts({"type": "image", "base64": PNG}, {"type": "image", "url": "x"}))
    with service.database.read() as session:
        assert session.scalars(select(Job)).all() == []
        assert session.scalars(select(File)).all() == []
    assert not service.settings.files_dir.exists()
    assert redis.Redis.from_url(redis_url).dbsize() == 0
