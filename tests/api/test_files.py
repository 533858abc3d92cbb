import base64
import io
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.services import Services
from api.upload import clean_name
from tests.api.stand_in import MP4, StandIn, png
from vlmq.config import Settings
from vlmq.limits import Limits


def upload(client: FlaskClient, data: bytes, name: str = "a.png") -> TestResponse:
    return client.post("/v1/files", data={"file": (io.BytesIO(data), name)}, content_type="multipart/form-data")


def uploaded(client: FlaskClient, data: bytes, name: str = "a.png") -> dict[str, Any]:
    answer = upload(client, data, name)
    assert answer.json is not None
    return dict(answer.json)


def test_a_script_with_a_gifs_signature_is_refused_and_not_kept(client: FlaskClient, service: Services) -> None:
    answer = upload(client, b"GIF89a/*" + bytes(200) + b"*/=1;alert(document.domain)", "cat.gif")
    assert answer.status_code == 415
    assert answer.json is not None
    assert answer.json["error"]["code"] == "unsupported_media_type"
    assert [path for path in service.settings.files_dir.rglob("*") if path.is_file()] == []


def test_a_file_whose_bytes_cannot_be_removed_is_deleted_all_the_same(client: FlaskClient, service: Services) -> None:
    file = uploaded(client, png())
    path = service.files.path(file["sha256"])
    path.unlink()
    path.mkdir()  # which refuses even the superuser
    assert client.delete(f"/v1/files/{file['id']}").status_code == 200
    assert client.get(f"/v1/files/{file['id']}").status_code == 404


def test_a_form_upload_is_stored_by_its_content(client: FlaskClient, service: Services) -> None:
    answer = upload(client, png(), "cat.png")
    assert answer.status_code == 201
    file = answer.json
    assert file is not None
    assert (file["object"], file["bytes"], file["media_type"], file["filename"]) == (
        "file",
        len(png()),
        "image/png",
        "cat.png",
    )
    assert answer.headers["Location"] == f"/v1/files/{file['id']}"
    assert service.files.path(file["sha256"]).read_bytes() == png()
    assert client.get(f"/v1/files/{file['id']}").json == file


def test_the_same_bytes_are_the_same_file_however_they_come(client: FlaskClient) -> None:
    first = uploaded(client, png())
    again = client.post("/v1/files", data=png(), content_type="image/png")
    assert (again.status_code, again.json) == (200, first)


def test_an_upload_larger_than_one_read_arrives_whole(client: FlaskClient, service: Services) -> None:
    data = MP4 + bytes(range(256)) * 4096
    file = uploaded(client, data, "a.mp4")
    assert service.files.path(file["sha256"]).read_bytes() == data
    raw = client.post("/v1/files", data=data, content_type="application/octet-stream")
    assert raw.json is not None
    assert raw.json["id"] == file["id"]


def test_the_type_is_told_from_the_bytes_not_from_the_name(client: FlaskClient) -> None:
    assert uploaded(client, MP4, "holiday.png")["media_type"] == "video/mp4"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"<!DOCTYPE html><script>alert(1)</script>", "text/html"),
        (b"%PDF-1.7", "application/pdf"),
        (b"<svg onload='x'/>", "image/svg+xml"),
        (b"MM\x00*" + b"\x00" * 100, "image/tiff"),
        (b"#!/bin/sh\nrm -rf /", "unknown"),
    ],
)
def test_what_is_neither_image_nor_video_is_refused_and_not_kept(
    client: FlaskClient, service: Services, data: bytes, told: str
) -> None:
    for answer in (upload(client, data), client.post("/v1/files", data=data, content_type="image/png")):
        assert answer.status_code == 415
        assert answer.json is not None
        assert told in answer.json["detail"]
        assert "PNG" in answer.json["detail"]
    assert not service.settings.files_dir.exists()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("/etc/passwd", "passwd"),
        ("a\x00b\r\nc\u202e.png", "abc.png"),
        ("..", None),
        ("", None),
        (None, None),
        ("日本.png", "日本.png"),
        ("x" * 500, "x" * 255),
    ],
)
def test_a_name_loses_folders_and_control_characters(name: str | None, kept: str | None) -> None:
    assert clean_name(name) == kept


def test_a_hostile_name_changes_nothing_but_what_is_shown(client: FlaskClient, service: Services) -> None:
    file = uploaded(client, png(), "../../evil.png")
    assert file["filename"] == "evil.png"
    kept = {path.relative_to(service.settings.files_dir).as_posix() for path in service.settings.files_dir.rglob("*")}
    assert kept == {file["sha256"][:2], f"{file['sha256'][:2]}/{file['sha256']}"}


def test_content_is_served_as_an_attachment_that_no_browser_runs(client: FlaskClient) -> None:
    file = uploaded(client, png(), 'a"\u2028b.png')
    answer = client.get(f"/v1/files/{file['id']}/content")
    assert answer.data == png()
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    part = client.get(f"/v1/files/{file['id']}/content", headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.data) == (206, b"PNG")


@pytest.mark.parametrize(
    ("name", "status"),
    [(b"a\r\n X-Evil: 1\r\n.png", 422), (b"a\rX-Evil: 1.png", 422), (b'a\\r\\nX-Evil: 1\\"; x=y.png', 201)],
)
def test_a_name_cannot_add_a_header(client: FlaskClient, name: bytes, status: int) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="' + name + b'"\r\n\r\nGIF89a\r\n--x--\r\n'
    answer = client.post("/v1/files", data=form, content_type="multipart/form-data; boundary=x")
    assert answer.status_code == status
    if status == 201:
        assert answer.json is not None
        content = client.get(f"/v1/files/{answer.json['id']}/content")
        assert "X-Evil" not in content.headers
        assert not {"\r", "\n"} & set(content.headers["Content-Disposition"])


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "image/png", 422),
        (png(), "", 415),
        (png(), "application/x-www-form-urlencoded", 415),
        (b"", "multipart/form-data", 422),
        (b"garbage", "multipart/form-data; boundary=x", 422),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x", 422),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\x89PNG',
            "multipart/form-data; boundary=x",
            422,
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            422,
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            422,
        ),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 422),
    ],
)
def test_a_malformed_upload_is_refused(client: FlaskClient, body: bytes, content_type: str, status: int) -> None:
    answer = client.post("/v1/files", data=body, content_type=content_type)
    assert answer.status_code == status, answer.get_data(as_text=True)
    assert answer.content_type == "application/problem+json"


def test_a_second_file_in_the_form_is_refused(client: FlaskClient) -> None:
    form = {"file": [(io.BytesIO(png()), "a.png"), (io.BytesIO(png()), "b.png")]}
    assert client.post("/v1/files", data=form, content_type="multipart/form-data").status_code == 422


def test_files_above_their_limits_are_refused_and_leave_nothing(settings: Settings, service: Services) -> None:
    limits = Limits(max_image_bytes=5000, max_upload_bytes=200_000)
    client = create_app(settings.model_copy(update={"limits": limits})).test_client()
    image = upload(client, png() + bytes(5000))
    video = upload(client, MP4 + bytes(200_000))
    body = client.post("/v1/files", data=MP4 + bytes(400_000), content_type="video/mp4")
    assert [answer.status_code for answer in (image, video, body)] == [413, 413, 413]
    assert not list(service.settings.files_dir.rglob("*"))


def test_files_are_listed_newest_first_without_those_from_inside_jobs(client: FlaskClient) -> None:
    ids = [uploaded(client, png(shade=shade))["id"] for shade in range(3)]
    part = {"type": "image", "base64": base64.b64encode(png(shade=9)).decode()}
    client.post("/v1/jobs", json={"model": "scripted", "messages": [{"role": "user", "content": [part]}]})
    listed = client.get("/v1/files?limit=2").json
    assert listed is not None
    assert [file["id"] for file in listed["data"]] == [ids[2], ids[1]]
    rest = client.get(f"/v1/files?after={listed['last_id']}").json
    assert rest is not None
    assert ([file["id"] for file in rest["data"]], rest["has_more"]) == ([ids[0]], False)


def test_an_uploaded_file_outlives_the_job_that_brought_it_first(client: FlaskClient, worker: StandIn) -> None:
    part = {"type": "image", "base64": base64.b64encode(png()).decode()}
    made = client.post("/v1/jobs", json={"model": "scripted", "messages": [{"role": "user", "content": [part]}]}).json
    assert made is not None
    answer = upload(client, png(), "mine.png")
    assert answer.json is not None
    assert (answer.status_code, answer.json["filename"]) == (200, "mine.png")
    worker.run(made["id"], "done")
    client.delete(f"/v1/jobs/{made['id']}")
    assert client.get(f"/v1/files/{answer.json['id']}/content").data == png()


def test_a_file_in_use_cannot_be_deleted_until_its_job_is_over(
    client: FlaskClient, service: Services, worker: StandIn
) -> None:
    file = uploaded(client, png())
    part = {"type": "image", "file_id": file["id"]}
    made = client.post("/v1/jobs", json={"model": "scripted", "messages": [{"role": "user", "content": [part]}]}).json
    assert made is not None
    assert client.delete(f"/v1/files/{file['id']}").status_code == 409
    job = worker.claim(made["id"])
    assert client.delete(f"/v1/files/{file['id']}").status_code == 409
    worker.end(job, "done")
    answer = client.delete(f"/v1/files/{file['id']}")
    assert (answer.status_code, answer.json) == (200, {"id": file["id"], "object": "file", "deleted": True})
    assert not service.files.path(file["sha256"]).exists()
    assert client.get(f"/v1/files/{file['id']}").status_code == 404
    assert client.get(f"/v1/jobs/{made['id']}").status_code == 200


@pytest.mark.parametrize("path", ["/v1/files/file_0", "/v1/files/file_0/content", "/v1/files/%00", "/v1/files/..%2f"])
def test_a_file_that_is_not_there_is_not_found(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
