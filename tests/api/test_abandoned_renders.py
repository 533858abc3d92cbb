"""`POST /v1/prompts/render` over a real connection, which its client closes, or keeps open."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from sqlalchemy import select

from models.claims import claim_next
from models.job import Job, JobKind, JobStatus, Outcome
from models.lifecycle import finish
from tests.api.bodies import BODY
from tests.api.conftest import Server
from tests.processes import until

SOON_S = 10.0  # where a wait that nobody gives up takes a minute


@contextmanager
def asking(server: Server) -> Iterator[socket.socket]:
    """A connection on which a prompt is to be rendered; it waits in the queue."""
    body = json.dumps(BODY).encode()
    kind = "Host: a\r\nContent-Type: application/json"
    head = f"POST /v1/prompts/render HTTP/1.1\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        until(lambda: len(renders(server)) == 1, what="the prompt in the queue")
        yield connection


def renders(server: Server) -> list[Job]:
    with server.worker.database.read() as session:
        return list(session.scalars(select(Job).where(Job.kind == JobKind.RENDER)))


def claim(server: Server) -> Job:
    with server.worker.database.write() as session:
        job = claim_next(session, model="scripted", worker_id="w1", lease_s=60, renders_only=True)
    assert job is not None
    return job


def end(server: Server, job: Job) -> None:
    outcome = Outcome(JobStatus.COMPLETED, usage={}, timings={}, manifest={"max_new_tokens": 1}, prompt="<s>hello")
    with server.worker.database.write() as session:
        change = finish(session, job.id, job.attempt, outcome)
    assert change is not None
    server.worker.emit(job, "status", change.event_data)


def test_a_prompt_that_waits_is_deleted_when_its_client_goes_away(server: Server) -> None:
    with asking(server):
        pass
    until(lambda: renders(server) == [], SOON_S, what="the prompt's end")


def test_a_worker_is_told_when_the_client_of_its_prompt_goes_away(server: Server) -> None:
    with asking(server):
        job = claim(server)
    until(lambda: renders(server)[0].cancel_requested_at is not None, SOON_S, what="the request to stop")
    with server.worker.database.write() as session:
        session.delete(session.get_one(Job, job.id))


def test_a_client_that_has_sent_its_next_request_already_is_there_and_is_answered(server: Server) -> None:
    with asking(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        job = claim(server)
        time.sleep(1.5)  # how long the client stays is the point
        end(server, job)
        answers = b"".join(iter(lambda: connection.recv(10_000), b""))
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert b"<s>hello" in answers
