"""Every way to send an image or a video with a job, and what is refused at the door."""

import base64
import io
import json
import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select

from api.app import create_app
from api.inline_media import read_inline
from api.services import EXTENSION, Services
from models.file import File
from tests.api.bodies import PNG, errors, with_parts
from tests.api.stand_in import MP4, png
from vlmq.config import Settings
from vlmq.errors import ErrorCode, VlmqError
from vlmq.limits import Limits
from vlmq.rooted import relative_path
from vlmq.served_model import ServedModel

P = "messages.0.content.0"
MP4_TEXT = base64.b64encode(MP4).decode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A media folder with an image, and with everything that must not be reached through it."""
    outside = tmp_path / "secret.png"
    outside.write_bytes(png())
    root = tmp_path / "media"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "cat.png").write_bytes(png())
    (root / "link.png").symlink_to(outside)
    (root / "near.png").symlink_to("inner/cat.png")
    (root / "out").symlink_to(tmp_path)
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture
def rooted(settings: Settings, root: Path) -> Iterator[FlaskClient]:
    app = create_app(settings.model_copy(update={"media_root": root}))
    yield app.test_client()
    service: Services = app.extensions[EXTENSION]
    service.close()
    service.database.dispose()


def stored_part(client: FlaskClient, part: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json=with_parts(part))
    assert answer.json is not None
    assert answer.status_code == 202, answer.json
    found: dict[str, Any] = answer.json["request"]["messages"][0]["content"][0]
    return found


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_path_below_the_root_is_stored_relative_to_it(rooted: FlaskClient, root: Path, kind: str) -> None:
    for path in ("inner/cat.png", "./inner//cat.png", str(root / "inner" / "cat.png")):
        assert stored_part(rooted, {"type": kind, "path": path}) == {"type": kind, "path": "inner/cat.png"}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("../secret.png", "invalid_request"),
        ("inner/../../secret.png", "invalid_request"),
        ("inner/../inner/cat.png", "invalid_request"),
        ("/etc/passwd", "invalid_request"),
        ("/proc/self/environ", "invalid_request"),
        ("link.png", "invalid_request"),
        ("near.png", "invalid_request"),
        ("out/secret.png", "invalid_request"),
        ("fifo", "invalid_request"),
        ("inner", "invalid_request"),
        ("inner\x00/cat.png", "invalid_request"),
        ("", "invalid_request"),
        (".", "invalid_request"),
        ("x" * 5000, "invalid_request"),
        ("x" * 300, "file_not_found"),
        ("inner/dog.png", "file_not_found"),
        ("inner/cat.png/more", "file_not_found"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused_and_tells_nothing(
    rooted: FlaskClient, root: Path, path: str, code: str
) -> None:
    assert errors(rooted, with_parts({"type": "image", "path": path})) == (422, [(code, f"{P}.path")])
    text = rooted.post("/v1/jobs", json=with_parts({"type": "image", "path": path})).get_data(as_text=True)
    assert str(root.parent) not in text
    assert "secret" not in text


def test_without_a_root_every_path_is_refused_with_the_setting_that_allows_them(client: FlaskClient) -> None:
    answer = client.post("/v1/jobs", json=with_parts({"type": "image", "path": "inner/cat.png"}))
    assert answer.json is not None
    assert answer.status_code == 422
    assert "VLMQ_MEDIA_ROOT" in answer.json["detail"]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video", "base64": MP4_TEXT},
        {"type": "video", "url": f"data:video/mp4;base64,{MP4_TEXT}"},
        {"type": "video", "video": f"data:;base64,{MP4_TEXT}"},
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{MP4_TEXT}"}},
    ],
)
def test_a_video_inside_the_request_becomes_a_file(
    client: FlaskClient, service: Services, part: dict[str, Any]
) -> None:
    stored = stored_part(client, part | {"num_frames": 4})
    with service.database.read() as session:
        file = session.get_one(File, stored["file_id"])
    assert (file.media_type, file.inline) == ("video/mp4", True)
    assert service.files.path(file.sha256).read_bytes() == MP4
    assert stored == {"type": "video", "file_id": file.id, "num_frames": 4}


def test_a_list_of_frames_is_stored_with_each_frames_source_and_its_times(client: FlaskClient) -> None:
    frames: list[Any] = ["https://e.com/1.png", {"url": "https://e.com/2.png"}, {"base64": PNG}]
    for name in ("frames", "video"):
        stored = stored_part(client, {"type": "video", name: frames, "timestamps": [0, 0.5, 3.2]})
        file_id = stored["frames"][2]["file_id"]
        assert stored == {
            "type": "video",
            "frames": [{"url": "https://e.com/1.png"}, {"url": "https://e.com/2.png"}, {"file_id": file_id}],
            "timestamps": [0, 0.5, 3.2],
        }


@pytest.mark.parametrize(
    "sampling",
    [
        {"frame_indices": [0, 5, 9]},
        {"timestamps": [0.0, 1.5]},
        {"start": 1.0, "end": 2.5, "fps": 2.0},
        {"start": 1.0},
        {"num_frames": 3, "max_pixels": 10000},
        {"backend": "opencv"},
    ],
)
def test_sampling_is_stored_as_it_came(client: FlaskClient, sampling: dict[str, Any]) -> None:
    video = {"type": "video", "url": "https://e.com/a.mp4"}
    assert stored_part(client, video | sampling) == video | sampling


def test_transformers_name_for_the_backend_means_the_same(client: FlaskClient) -> None:
    video = {"type": "video", "url": "https://e.com/a.mp4"}
    assert stored_part(client, video | {"video_load_backend": "decord"}) == video | {"backend": "decord"}


V = {"type": "video", "url": "https://e.com/a.mp4"}
TWO = ["https://e.com/1.png", "https://e.com/2.png"]


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (V | {"num_frames": 2, "frame_indices": [1]}, f"{P}.frame_indices"),
        (V | {"fps": 1, "timestamps": [1.0]}, f"{P}.timestamps"),
        (V | {"frame_indices": []}, f"{P}.frame_indices"),
        (V | {"frame_indices": [3, 2]}, f"{P}.frame_indices"),
        (V | {"frame_indices": [-1]}, f"{P}.frame_indices.0"),
        (V | {"timestamps": [1.0, 1.0]}, f"{P}.timestamps"),
        (V | {"timestamps": [1e999]}, f"{P}.timestamps.0"),
        (V | {"timestamps": [0, 1e308]}, f"{P}.timestamps.1"),
        (V | {"frame_indices": [0, 10**30]}, f"{P}.frame_indices.1"),
        (V | {"fps": 5e-324}, f"{P}.fps"),
        (V | {"start": 1e308}, f"{P}.start"),
        (V | {"end": 1e308}, f"{P}.end"),
        (V | {"start": 3, "end": 2}, f"{P}.end"),
        (V | {"start": -1}, f"{P}.start"),
        (V | {"frame_indices": [1], "start": 1}, f"{P}.start"),
        (V | {"max_pixels": 1}, f"{P}.max_pixels"),
        (V | {"backend": "ffmpeg"}, f"{P}.backend"),
        (V | {"backend": "pyav", "video_load_backend": "opencv"}, f"{P}.video_load_backend"),
        (V | {"num_frames": 769}, f"{P}.num_frames"),
        (V | {"frame_indices": list(range(769))}, f"{P}.frame_indices"),
        (V | {"frames": TWO}, P),
        ({"type": "video", "frames": []}, f"{P}.frames"),
        ({"type": "video", "frames": [5]}, f"{P}.frames.0"),
        ({"type": "video", "frames": [{"url": TWO[0], "file_id": "f"}]}, f"{P}.frames.0"),
        ({"type": "video", "frames": TWO, "timestamps": [1.0]}, f"{P}.timestamps"),
        ({"type": "video", "frames": TWO, "fps": 5e-324}, f"{P}.fps"),
        ({"type": "video", "frames": TWO, "timestamps": [0, 1e308]}, f"{P}.timestamps.1"),
        ({"type": "video", "frames": TWO, "num_frames": 1}, f"{P}.num_frames"),
        ({"type": "video", "video": TWO, "start": 1}, f"{P}.start"),
        ({"type": "video", "frames": TWO * 400}, f"{P}.frames"),
        ({"type": "video", "video": 5}, f"{P}.video"),
    ],
)
def test_a_sampling_that_contradicts_itself_is_refused_by_its_field(
    client: FlaskClient, part: dict[str, Any], param: str
) -> None:
    assert errors(client, with_parts(part)) == (422, [("invalid_request", param)])


@pytest.mark.parametrize(
    ("part", "status", "code", "param"),
    [
        ({"type": "video", "base64": PNG}, 415, "unsupported_media_type", f"{P}.base64"),
        ({"type": "video", "base64": "!!!"}, 422, "invalid_request", f"{P}.base64"),
        ({"type": "video", "base64": ""}, 422, "video_invalid", f"{P}.base64"),
        ({"type": "video", "url": f"data:video/webm;base64,{MP4_TEXT}"}, 422, "invalid_request", f"{P}.url"),
        ({"type": "video", "frames": [{"base64": MP4_TEXT}]}, 415, "unsupported_media_type", f"{P}.frames.0.base64"),
        ({"type": "video", "frames": ["file:///etc/passwd"]}, 422, "url_blocked", f"{P}.frames.0"),
        ({"type": "video", "frames": [{"url": "http://169.254.169.254/"}]}, 422, "url_blocked", f"{P}.frames.0.url"),
        ({"type": "video", "frames": [{"file_id": "file_0"}]}, 422, "file_not_found", f"{P}.frames.0.file_id"),
        ({"type": "image", "url": "file:///etc/passwd"}, 422, "url_blocked", f"{P}.url"),
    ],
)
def test_bytes_and_urls_that_are_no_such_media_are_refused_by_their_field(
    settings: Settings, part: dict[str, Any], status: int, code: str, param: str
) -> None:
    client = create_app(settings.model_copy(update={"dev_allow_private_urls": False})).test_client()
    assert errors(client, with_parts(part)) == (status, [(code, param)])


def test_a_thousand_images_are_refused_and_none_is_kept(client: FlaskClient, service: Services) -> None:
    body = with_parts(*[{"type": "image", "base64": PNG}] * 1000)
    assert errors(client, body) == (422, [("invalid_request", "messages")])
    assert stored_files(service) == 0


def test_a_video_above_its_limit_and_frames_above_the_models_are_refused(settings: Settings) -> None:
    served = ServedModel(checkpoint="scripted", engine="scripted", max_frames=4)
    limits = Limits(max_video_bytes=8)
    client = create_app(settings.model_copy(update={"limits": limits, "models": {"scripted": served}})).test_client()
    assert errors(client, with_parts(V | {"num_frames": 5})) == (422, [("invalid_request", f"{P}.num_frames")])
    large = errors(client, with_parts({"type": "video", "base64": MP4_TEXT}))
    assert large == (413, [("media_too_large", f"{P}.base64")])


def form(job: Any, **files: bytes) -> dict[str, Any]:
    text = job if isinstance(job, str) else json.dumps(job)
    return {"job": text} | {name: (io.BytesIO(data), f"{name}.bin") for name, data in files.items()}


def stored_files(service: Services) -> int:
    with service.database.read() as session:
        return session.scalar(select(func.count()).select_from(File)) or 0


def test_a_job_and_its_files_come_in_one_request(client: FlaskClient, service: Services) -> None:
    job = with_parts({"type": "image", "upload": "cat"}, {"type": "video", "upload": "clip", "num_frames": 2})
    answer = client.post("/v1/jobs", data=form(job, cat=png(), clip=MP4))
    assert answer.json is not None
    assert answer.status_code == 202, answer.json
    image, video = answer.json["request"]["messages"][0]["content"]
    for part, data in ((image, png()), (video, MP4)):
        with service.database.read() as session:
            file = session.get_one(File, part["file_id"])
        assert file.inline
        assert service.files.path(file.sha256).read_bytes() == data


def test_a_large_file_of_a_form_arrives_whole(client: FlaskClient, service: Services) -> None:
    data = MP4 + os.urandom(700_000)
    answer = client.post("/v1/jobs", data=form(with_parts({"type": "video", "upload": "clip"}), clip=data))
    assert answer.json is not None
    with service.database.read() as session:
        file = session.get_one(File, answer.json["request"]["messages"][0]["content"][0]["file_id"])
    assert service.files.path(file.sha256).read_bytes() == data


CAT = with_parts({"type": "image", "upload": "cat"})


@pytest.mark.parametrize(
    ("data", "status", "code", "param"),
    [
        (form(CAT), 422, "invalid_request", f"{P}.upload"),
        (form(CAT, cat=png(), dog=png()), 422, "invalid_request", "dog"),
        (form(CAT, cat=b""), 422, "image_invalid", f"{P}.upload"),
        (form(CAT, cat=MP4), 415, "unsupported_media_type", f"{P}.upload"),
        (form(CAT, cat=b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 415, "unsupported_media_type", f"{P}.upload"),
        (form('{"model": NaN}'), 400, "invalid_json", None),
        (form('{"model": "a", "model": "b"}'), 400, "invalid_json", None),
        (form("[" * 100), 400, "invalid_json", None),
        (form("[]"), 422, "invalid_request", None),
        ({"cat": (io.BytesIO(png()), "cat.png")}, 422, "invalid_request", "job"),
        (form(CAT) | {"other": "text"}, 422, "unknown_field", "other"),
    ],
)
def test_a_form_that_does_not_fit_its_job_is_refused_and_nothing_is_kept(
    client: FlaskClient, service: Services, data: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    answer = client.post("/v1/jobs", data=data, content_type="multipart/form-data")
    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]["code"], answer.json["error"]["param"]) == (status, code, param)
    assert stored_files(service) == 0


def test_a_form_is_taken_for_jobs_alone_and_not_cut_off(client: FlaskClient) -> None:
    assert client.post("/v1/jobs/x/cancel", data=form(CAT)).status_code in (404, 415)
    cut = client.post(
        "/v1/jobs",
        data=b'--b\r\nContent-Disposition: form-data; name="job"\r\n\r\n{',
        content_type="multipart/form-data; boundary=b",
    )
    assert cut.status_code == 422
    nameless = client.post("/v1/jobs", data=b"x", content_type="multipart/form-data")
    assert nameless.status_code == 422


def test_the_same_form_with_the_same_key_makes_one_job_whatever_its_boundary(client: FlaskClient) -> None:
    key = {"Idempotency-Key": "k"}
    first = client.post("/v1/jobs", data=form(CAT, cat=png()), headers=key)
    again = client.post("/v1/jobs", data=form(CAT, cat=png()), headers=key)
    other = client.post("/v1/jobs", data=form(CAT, cat=png(3, 3)), headers=key)
    assert first.json is not None
    assert again.json is not None
    assert first.json["id"] == again.json["id"]
    assert other.status_code == 422


def test_a_job_inside_a_form_is_held_to_the_limit_of_a_body(settings: Settings) -> None:
    client = create_app(settings.model_copy(update={"limits": Limits(max_body_bytes=2000)})).test_client()
    data = form(with_parts({"type": "text", "text": "x" * 3000}))
    answer = client.post("/v1/jobs", data=data, content_type="multipart/form-data")
    assert answer.status_code == 413


def test_a_long_path_costs_nothing(tmp_path: Path) -> None:
    began = time.process_time()
    with pytest.raises(VlmqError) as refusal:
        relative_path(tmp_path, "a/" * 3_000_000, param="path")
    assert refusal.value.code is ErrorCode.INVALID_REQUEST
    assert time.process_time() - began < 0.1


def test_base64_in_many_lines_costs_no_more_memory_than_its_text() -> None:
    # The first bytes of a PNG, over and over, in lines of four characters.
    text = "iVBO Rw0K GgoA " * 100_000
    tracemalloc.start()
    try:
        read_inline(text, kind="image", limit_bytes=len(text), param="base64")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(text)
