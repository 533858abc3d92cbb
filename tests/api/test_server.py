"""The process itself: what it loads, how it ends, and that nobody waits for somebody else's database."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from sqlalchemy import create_engine, text

from tests.api.conftest import Server, start_server, stop_server
from tests.tasks.rows import eventually

BODY: Any = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}


def test_the_application_loads_no_model_library() -> None:
    code = (
        "import sys, api.app, api.server; "
        "print(sorted({'torch', 'transformers', 'numpy', 'PIL', 'av', 'tokenizers'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.strip() == "[]"


def test_a_process_stays_small(server: Server) -> None:
    for _ in range(20):
        requests.post(f"{server.url}/v1/jobs", json=BODY, timeout=20)
    parent = psutil.Process(server.process.pid)
    for process in [parent, *parent.children(recursive=True)]:
        assert process.memory_info().rss < 150 * 2**20


def test_many_requests_at_once_with_one_key_make_one_job(server: Server) -> None:
    def post(_: int) -> str:
        headers = {"Idempotency-Key": "order-17"}
        return str(requests.post(f"{server.url}/v1/jobs", json=BODY, headers=headers, timeout=30).json()["id"])

    with ThreadPoolExecutor(50) as pool:
        assert len(set(pool.map(post, range(50)))) == 1


def test_an_upload_reaches_the_disk_through_the_server(server: Server) -> None:
    data = b"\x00\x00\x00\x18ftypisom" + os.urandom(300_000)
    answer = requests.post(f"{server.url}/v1/files", files={"file": ("a.mp4", data)}, timeout=20)
    chunks = iter([data[:1000], data[1000:200_000], data[200_000:]])
    again = requests.post(f"{server.url}/v1/files", data=chunks, headers={"Content-Type": "video/mp4"}, timeout=20)
    assert (answer.status_code, again.status_code) == (201, 200)
    content = requests.get(f"{server.url}/v1/files/{again.json()['id']}/content", timeout=20)
    assert content.content == data


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /v1/jobs HTTP/9.9\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xff\r\n\r\n", 400),
        (b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\nIdempotency-Key: a\x00b\r\n\r\n", 400),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    ],
    ids=["version", "tls", "nul", "length", "smuggled", "url", "headers"],
)
def test_what_is_no_http_request_is_refused_as_all_else_is(server: Server, sent: bytes, status: int) -> None:
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        connection.sendall(sent)
        answer = b"".join(iter(lambda: connection.recv(10_000), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"application/problem+json" in head
    assert json.loads(body)["error"]["code"] == "invalid_request"


@pytest.fixture
def own_server(tmp_path: Path, sqlite_template: Path, redis_url: str) -> Server:
    shutil.copy(sqlite_template, tmp_path / "vlmq.db")
    return start_server(tmp_path, tmp_path / "vlmq.db", redis_url)


def test_metrics_of_a_killed_server_are_removed_by_the_next(
    tmp_path: Path, sqlite_template: Path, redis_url: str
) -> None:
    shutil.copy(sqlite_template, tmp_path / "vlmq.db")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    folders = []
    for _ in range(2):
        server = start_server(tmp_path, tmp_path / "vlmq.db", redis_url, TMPDIR=str(temporary))
        folders.append(list(temporary.glob("vlmq-metrics-*")))
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait(20)
    ((first,), (second,)) = folders
    assert first != second


def test_sigterm_ends_streams_and_waits_and_then_the_process(own_server: Server) -> None:
    server = own_server
    try:
        job_id = server.submit()
        connected = threading.Event()

        def stream() -> list[bytes]:
            with requests.get(f"{server.url}/v1/jobs/{job_id}/events", stream=True, timeout=30) as response:
                lines = []
                for line in response.iter_lines():
                    connected.set()
                    lines.append(line)
                return lines

        with ThreadPoolExecutor(2) as pool:
            streaming = pool.submit(stream)
            waiting = pool.submit(requests.get, f"{server.url}/v1/jobs/{job_id}?wait=55", timeout=60)
            assert connected.wait(20)
            (child,) = psutil.Process(server.process.pid).children()
            eventually(lambda: sum(each.status == "ESTABLISHED" for each in child.net_connections("tcp")) == 2)
            server.process.send_signal(signal.SIGTERM)
            # Both end by themselves and in order: the stream without a broken chunk, the wait with the job.
            assert streaming.result(20)[0].startswith(b"retry:")
            assert waiting.result(20).json()["status"] == "queued"
        assert server.process.wait(20) == 0
    finally:
        stop_server(server)


def test_a_request_that_waits_for_postgresql_holds_up_no_other(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    server = start_server(tmp_path, tmp_path / "unused.db", redis_url, DATABASE_URL=postgres_url)
    engine = create_engine(postgres_url)
    try:
        order = []
        with ThreadPoolExecutor(1) as pool, engine.connect() as connection:
            connection.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
            held = pool.submit(requests.post, f"{server.url}/v1/jobs", json=BODY, timeout=30)
            locks = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            with engine.connect() as observer:
                eventually(lambda: observer.scalar(locks))
            assert requests.get(f"{server.url}/healthz", timeout=20).ok
            order.append("healthy")
            connection.rollback()
            assert held.result(20).status_code == 202
            order.append("accepted")
        assert order == ["healthy", "accepted"]
    finally:
        engine.dispose()
        stop_server(server)
