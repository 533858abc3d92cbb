"""A Python client for the API: submit, follow, wait, cancel, and everything else over HTTP.

Needs only requests, and imports nothing of the service.
"""

import io
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from vlmq.client_answers import Event, Job
from vlmq.client_connection import ApiError, ClientError, Connection, UnreachableError
from vlmq.client_shapes import DELIVERIES, JOB, JOBS, MODELS, STORED, Shape
from vlmq.client_upload import FileForm
from vlmq.sse import read_events

__all__ = ["ApiError", "Client", "ClientError", "Event", "Job", "UnreachableError"]

# Above the server's heartbeat of 15 s: a connection that is silent for longer is taken for dead.
STREAM_SILENCE_S = 45.0
LONG_POLL_S = 30.0


class Client:
    """Speaks to one service. Safe to use from one thread at a time.

    Raises:
        UnreachableError: nothing answers.
        ApiError: the service refused.
        ClientError: the address, the key or an argument cannot be used, or the answer is not one of vlmq's.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8000", api_key: str | None = None, *, timeout_s: float = 30
    ) -> None:
        self._timeout_s = timeout_s
        self._connection = Connection(url, api_key, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def submit(
        self, messages: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None, **fields: Any
    ) -> Job:
        """Create a job. `fields` are the others of `POST /v1/jobs` (`model`, `generation`, …); None leaves one out."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._job("POST", "/v1/jobs", json=_body(messages, fields), headers=headers)

    def submit_and_follow(
        self, messages: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None, **fields: Any
    ) -> tuple[str, Iterator[Event]]:
        """`submit` and `events` in one request, which saves a round trip: the new job's id, and its stream."""
        headers = {"Accept": "text/event-stream"} | ({"Idempotency-Key": idempotency_key} if idempotency_key else {})
        timeout = (self._timeout_s, STREAM_SILENCE_S)
        response = self._connection.call(
            "POST", "/v1/jobs", json=_body(messages, fields), headers=headers, stream=True, timeout=timeout
        )
        if not _is_stream(response):
            # A service of an earlier version, or a proxy that does not pass `Accept` on: the job is made all the same.
            with response:
                job_id = str(self._connection.answer(STORED, response)["id"])
            return job_id, self.events(job_id)
        job_id = response.headers.get("Location", "").rpartition("/")[2]
        if not job_id:
            response.close()
            raise self._connection.stranger()
        return job_id, self.events(job_id, opened=response)

    def get(self, job_id: str, *, wait_s: float = 0) -> Job:
        """The job now, or after up to `wait_s` seconds, as soon as it is final."""
        params = {"wait": f"{wait_s:g}"} if wait_s else {}
        return self._job("GET", _job_path(job_id), params=params, timeout=self._timeout_s + wait_s)

    def wait(self, job_id: str, *, timeout_s: float = 600) -> Job:
        """The job once it is final.

        Raises:
            TimeoutError: it was not after `timeout_s`.
        """
        give_up_at = time.monotonic() + timeout_s
        while True:
            left = give_up_at - time.monotonic()
            job = self.get(job_id, wait_s=max(0.0, min(left, LONG_POLL_S)))
            if job.is_final:
                return job
            if left <= 0:
                raise TimeoutError(f"{job_id} is still {job.status} after {timeout_s:g} s")

    def events(
        self,
        job_id: str,
        *,
        after: str | None = None,
        patience_s: float = 60,
        opened: requests.Response | None = None,
    ) -> Iterator[Event]:
        """The job's stream from its beginning, or after the event `after`, to its final status.

        A connection that breaks is made anew and goes on where it ended; no event comes twice or is left out, save
        where a `gap` event says so. Gives up with UnreachableError when nothing answers for `patience_s`. A stream
        that is `opened` already is read first.
        """
        give_up_at = time.monotonic() + patience_s
        ended = False
        while not ended:
            try:
                with opened or self._open_stream(job_id, after) as response:
                    opened = None
                    if response.status_code == 204:
                        return
                    for message in read_events(response.iter_content(chunk_size=None)):
                        event = self._connection.event(message)
                        yield event
                        after = event.id
                        give_up_at = time.monotonic() + patience_s
                        # Not the end yet: a connection whose answer is read to its end serves the next request.
                        ended = ended or event.is_final
            except (UnreachableError, requests.RequestException) as error:
                if not ended and time.monotonic() > give_up_at:
                    raise UnreachableError(f"lost the stream of {job_id} from {self._connection.url}") from error
            except ApiError as error:
                if error.status != 503 or time.monotonic() > give_up_at:
                    raise
            if not ended:
                time.sleep(0.2)

    def cancel(self, job_id: str) -> Job:
        return self._job("POST", f"{_job_path(job_id)}/cancel")

    def delete(self, job_id: str) -> None:
        self._connection.call("DELETE", _job_path(job_id))

    def jobs(self, *, limit: int = 20, after: str | None = None, **filters: str | None) -> list[Job]:
        """One page of jobs, newest first; `filters` such as `status` and `model`."""
        params = {"limit": limit, "after": after, **filters}
        return [Job(row) for row in self._rows(JOBS, "/v1/jobs", params)]

    def upload(self, file: Path | bytes, *, filename: str | None = None) -> str:
        """Store a file and return its id, for `{"type": "image", "file_id": …}`."""
        name = filename or (file.name if isinstance(file, Path) else "upload")
        with io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as stream:
            form = FileForm(name, stream)
            # What counts is that bytes keep flowing, which the timeout looks at.
            headers = {"Content-Type": form.content_type}
            response = self._connection.call("POST", "/v1/files", data=form, headers=headers)
        return str(self._connection.answer(STORED, response)["id"])

    def models(self) -> list[dict[str, Any]]:
        return self._rows(MODELS, "/v1/models", {})

    def deliveries(self, job_id: str) -> list[dict[str, Any]]:
        """The webhook messages of a job, with what became of them."""
        return self._rows(DELIVERIES, "/v1/deliveries", {"job_id": job_id})

    def ready(self) -> bool:
        """Whether the service can take and run jobs now."""
        try:
            return self._connection.call("GET", "/readyz").status_code == 200
        except ClientError:
            return False

    def _job(self, method: str, path: str, **options: Any) -> Job:
        return Job(self._connection.answer(JOB, self._connection.call(method, path, **options)))

    def _rows(self, shape: Shape, path: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        return list(self._connection.answer(shape, self._connection.call("GET", path, params=params))["data"])

    def _open_stream(self, job_id: str, after: str | None) -> requests.Response:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        timeout = (self._timeout_s, STREAM_SILENCE_S)
        response = self._connection.call(
            "GET", f"{_job_path(job_id)}/events", headers=headers, stream=True, timeout=timeout
        )
        if response.status_code != 204 and not _is_stream(response):
            response.close()
            raise self._connection.stranger()
        return response


def _is_stream(response: requests.Response) -> bool:
    return response.headers.get("Content-Type", "").startswith("text/event-stream")


def _body(messages: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages)} | {name: value for name, value in fields.items() if value is not None}


def _job_path(job_id: str) -> str:
    # Anything else, such as "." or "#", would make a path that means something else.
    if re.fullmatch(r"[A-Za-z0-9_-]+", job_id) is None:
        raise ClientError(f"{job_id!r} is no id of a job; `vlmq jobs` lists them")
    return f"/v1/jobs/{job_id}"
