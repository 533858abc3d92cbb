"""Forms and uploads that lie about themselves, in process and on the real server."""

import json
import resource
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select

from api.services import Services
from models.file import File
from tests.api.bodies import with_parts
from tests.api.conftest import Server, start_server, stop_server
from tests.api.stand_in import MP4, png

CAT = with_parts({"type": "image", "upload": "cat"})


def field(name: str, data: bytes, filename: str | None = None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"


def form(*fields: bytes) -> bytes:
    return b"".join(fields) + b"--x--\r\n"


JOB = field("job", json.dumps(CAT).encode())
FILE = field("cat", png(), "cat.png")


def test_a_form_for_which_the_disk_has_no_room_may_be_sent_again(
    client: FlaskClient, service: Services, tmp_path: Path
) -> None:
    big = form(JOB, field("cat", png() + bytes(300_000), "cat.png"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The largest file that this process may write: what is beyond is refused as a full disk would.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        full = client.post("/v1/jobs", data=big, content_type="multipart/form-data; boundary=x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (service.settings.data_dir / "tmp").rmdir()
    (service.settings.data_dir / "tmp").touch()
    gone = client.post("/v1/jobs", data=form(JOB, FILE), content_type="multipart/form-data; boundary=x")
    for answer in (full, gone):
        assert answer.json is not None
        assert (answer.status_code, answer.json["error"]["code"]) == (503, "unavailable")
        assert str(tmp_path) not in answer.text


FORMS: dict[str, tuple[bytes, str, str | None]] = {
    "a file twice": (form(JOB, FILE, FILE), "invalid_request", "cat"),
    "the job twice": (form(JOB, FILE, JOB), "invalid_request", "job"),
    "the job as a file, too": (form(JOB, FILE, field("job", b"{}", "job.json")), "invalid_request", "job"),
    "a file without a name": (form(JOB, field("", png(), "cat.png")), "invalid_request", None),
    "a file with a long name": (form(JOB, field("c" * 200, png(), "cat.png")), "invalid_request", "c" * 128),
    "too many files": (form(JOB, *(field(str(number), b"", "a") for number in range(1100))), "invalid_request", "1024"),
    "a file that says it is text": (form(JOB, field("cat", png())), "unknown_field", "cat"),
    "a file that no part names": (form(JOB, FILE, field("dog", png(), "dog.png")), "invalid_request", "dog"),
    "a part without its file": (form(JOB), "invalid_request", "messages.0.content.0.upload"),
    "no job": (form(FILE), "invalid_request", "job"),
    "no end": (JOB + FILE, "invalid_request", None),
    "half a field": (JOB[:-10], "invalid_request", None),
    "nothing": (b"", "invalid_request", "job"),
    "an endless header": (form(b"--x\r\nX: " + b"a" * 300_000 + b"\r\n\r\n\r\n"), "body_too_large", None),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_says_something_twice_or_half_is_refused_and_nothing_is_kept(
    client: FlaskClient, service: Services, name: str
) -> None:
    body, code, param = FORMS[name]
    answer = client.post("/v1/jobs", data=body, content_type="multipart/form-data; boundary=x")
    assert answer.json is not None
    assert answer.status_code in (413, 422)
    assert (answer.json["error"]["code"], answer.json["error"]["param"]) == (code, param)
    with service.database.read() as session:
        assert session.scalar(select(func.count()).select_from(File)) == 0


def test_a_hostile_name_inside_a_form_is_a_name_and_no_path(client: FlaskClient, service: Services) -> None:
    name = "../../../etc/passwd"
    body = form(
        field("job", json.dumps(with_parts({"type": "image", "upload": name})).encode()),
        field(name, png(), "../../cat.png"),
    )
    answer = client.post("/v1/jobs", data=body, content_type="multipart/form-data; boundary=x")
    assert answer.status_code == 202
    kept = [path for path in service.settings.files_dir.rglob("*") if path.is_file()]
    assert [path.parent.parent for path in kept] == [service.settings.files_dir]


@pytest.fixture
def narrow(tmp_path: Path, sqlite_url: str, redis_url: str) -> Any:
    """A server that takes bodies and uploads of a hundred kilobytes."""
    database = Path(sqlite_url.removeprefix("sqlite:///"))
    limits = {"VLMQ_LIMITS__MAX_BODY_BYTES": "100000", "VLMQ_LIMITS__MAX_UPLOAD_BYTES": "100000"}
    server = start_server(tmp_path, database, redis_url, **limits)
    yield server
    stop_server(server)


def send_chunked(server: Server, path: str, content_type: str, beginning: bytes) -> tuple[bytes, int]:
    """Send a body without an end, in chunks; the first line of the answer, and the bytes that were sent before it."""
    parts = urlsplit(server.url)
    sent = 0
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + b"%x\r\n%s\r\n" % (len(beginning), beginning))
        connection.setblocking(False)
        answer = b""
        while not answer and sent < 50_000_000:
            connection.settimeout(0.01)
            try:
                answer = connection.recv(1000)
            except TimeoutError:
                connection.settimeout(20)
                connection.sendall(b"186a0\r\n" + b"a" * 100_000 + b"\r\n")
                sent += 100_000
            except ConnectionError:
                break
    return answer.partition(b"\r\n")[0], sent


def test_an_endless_chunked_upload_is_refused_while_it_arrives_and_leaves_nothing(
    narrow: Server, tmp_path: Path
) -> None:
    multipart = "multipart/form-data; boundary=x"
    opening = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n%s'
    for path, content_type, beginning in (
        ("/v1/files", "video/mp4", MP4),
        ("/v1/files", multipart, opening % (b"file", MP4)),
        ("/v1/jobs", multipart, JOB + opening % (b"cat", MP4)),
        ("/v1/jobs", multipart, b'--x\r\nContent-Disposition: form-data; name="job"\r\n\r\n{"'),
    ):
        status, sent = send_chunked(narrow, path, content_type, beginning)
        assert status.startswith(b"HTTP/1.1 413 "), (path, content_type)
        assert sent < 10_000_000
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file() and path.stat().st_size > 50_000] == []
