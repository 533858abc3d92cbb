"""The only door to URLs that users give: what may be called, and calls that end on time and stay small.

Which URLs are allowed stands in `url_rules`; how addresses are pinned and calls are cut, in `timed_session`.
"""

import hashlib
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urljoin

import requests
from requests_hardened.ip_filter import InvalidIPAddress
from urllib3.exceptions import HTTPError, NameResolutionError, SSLError

from vlmq.cutoff import Cutoff
from vlmq.errors import ErrorCode, VlmqError
from vlmq.timed_session import Deadline, TimedSession
from vlmq.url_rules import objection

MAX_REDIRECTS = 3
CHUNK_BYTES = 64 * 1024
USER_AGENT = "vlmq"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WORTH_A_RETRY = frozenset({408, 425, 429})
# What requests raises, and what it lets slip through from below for some URLs.
_CALL_ERRORS = (requests.RequestException, HTTPError, UnicodeError)
_CAUSES: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((requests.exceptions.SSLError, SSLError), "TLS failed"),
    ((socket.gaierror, NameResolutionError), "the host name could not be resolved"),
    ((ConnectionRefusedError,), "connection refused"),
    ((requests.Timeout, TimeoutError), "timed out"),
    ((requests.exceptions.ContentDecodingError,), "the body could not be decompressed"),
    ((requests.exceptions.InvalidHeader,), "a header is not valid"),
)


@dataclass(frozen=True, slots=True)
class Posted:
    """What a receiver answered; `excerpt` is the beginning of its body."""

    status: int
    excerpt: str


class OutboundError(Exception):
    """A call that got no answer; the message says why in a few words that may be shown to the user."""


def check_url(url: str, *, allow_private: bool, param: str | None, https_only: bool = False) -> None:
    """Refuse a URL that is not allowed, as far as it can be told without DNS.

    Raises:
        VlmqError: `url_blocked`, with the reason.
    """
    reason = objection(url, allow_private=allow_private, https_only=https_only)
    if reason is not None:
        raise VlmqError(ErrorCode.URL_BLOCKED, f"The URL {reason}.", param=param)


def fetch(
    url: str,
    *,
    limit_bytes: int,
    timeout_s: float,
    allow_private: bool,
    sink: BinaryIO,
    param: str | None,
    cutoff: Cutoff | None = None,
) -> str:
    """Download `url` into `sink`, within `limit_bytes` after decompression and `timeout_s` from start to end.

    Returns the SHA-256 of what was written, in hex. A `cutoff` ends it early, with `media_timeout`.

    Raises:
        VlmqError: `url_blocked`, `redirect_refused`, `media_fetch_failed`, `media_timeout` or `media_too_large`.
    """
    check_url(url, allow_private=allow_private, param=param)
    cutoff = cutoff or Cutoff()
    with (
        Deadline(cutoff.seconds(timeout_s)) as deadline,
        cutoff.cutting(deadline.end_now),
        TimedSession(deadline, allow_private=allow_private) as session,
    ):
        try:
            with _follow(session, url, deadline, allow_private=allow_private, param=param) as response:
                return _download(response, deadline, limit_bytes=limit_bytes, sink=sink, param=param)
        except InvalidIPAddress:
            raise _not_public(param) from None
        except _CALL_ERRORS as error:
            if deadline.passed:
                message = f"The download took longer than {timeout_s:g} s."
                raise VlmqError(ErrorCode.MEDIA_TIMEOUT, message, param=param) from None
            # A certificate that does not fit will not fit a minute later.
            retryable = not isinstance(error, requests.exceptions.SSLError)
            message = f"The URL could not be fetched: {_cause(error)}."
            raise VlmqError(ErrorCode.MEDIA_FETCH_FAILED, message, param=param, retryable=retryable) from None


def post(
    url: str,
    *,
    body: bytes,
    headers: Mapping[str, str],
    timeout_s: float,
    max_response_bytes: int,
    allow_private: bool,
) -> Posted:
    """POST `body` and read the beginning of the answer. Redirects are an answer like any other: never followed.

    Raises:
        VlmqError: `url_blocked`.
        OutboundError: no answer within `timeout_s`, with its cause.
    """
    check_url(url, allow_private=allow_private, param=None)
    with Deadline(timeout_s) as deadline, TimedSession(deadline, allow_private=allow_private) as session:
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"} | dict(headers)
        try:
            response = session.post(
                url, data=body, headers=sent, stream=True, allow_redirects=False, timeout=deadline.timeouts()
            )
            # Headers that were cut at the deadline read like headers that ended.
            if deadline.passed:
                response.close()
                raise requests.Timeout
        except InvalidIPAddress:
            raise _not_public(None) from None
        except _CALL_ERRORS as error:
            raise OutboundError(f"timed out after {timeout_s:g} s" if deadline.passed else _cause(error)) from None
        excerpt = bytearray()
        # The status has come; a body that breaks off or never ends changes nothing about it.
        with response, suppress(*_CALL_ERRORS):
            for chunk in response.iter_content(min(CHUNK_BYTES, max_response_bytes)):
                excerpt += chunk
                if len(excerpt) >= max_response_bytes:
                    break
        return Posted(response.status_code, excerpt[:max_response_bytes].decode("utf-8", "replace"))


@contextmanager
def _follow(
    session: TimedSession, url: str, deadline: Deadline, *, allow_private: bool, param: str | None
) -> Iterator[requests.Response]:
    """The answer at the end of a chain of redirects, each of which is checked like the URL itself."""
    headers = {"User-Agent": USER_AGENT, "Accept": "image/*,video/*", "Accept-Encoding": "identity"}
    for hop in range(MAX_REDIRECTS + 1):
        try:
            response = session.get(
                url, headers=headers, stream=True, allow_redirects=False, timeout=deadline.timeouts()
            )
        except InvalidIPAddress:
            if hop == 0:
                raise
            raise _refused("to an address that is not public", param) from None
        location = session.redirect_target(response) if response.status_code in _REDIRECTS else None
        if location is None:
            with response:
                yield response
            return
        response.close()
        try:
            url = urljoin(url, location)
        except ValueError:
            raise _refused("to something that is not a URL", param) from None
        reason = objection(url, allow_private=allow_private)
        if reason is not None:
            raise _refused(f"to a URL that {reason}", param)
    raise _refused(f"more than {MAX_REDIRECTS} times", param)


def _download(
    response: requests.Response, deadline: Deadline, *, limit_bytes: int, sink: BinaryIO, param: str | None
) -> str:
    status = response.status_code
    if not 200 <= status < 300:
        message = f"The URL answered with HTTP status {status}."
        retryable = status >= 500 or status in _WORTH_A_RETRY
        raise VlmqError(ErrorCode.MEDIA_FETCH_FAILED, message, param=param, retryable=retryable)
    message = f"The file behind the URL is larger than {limit_bytes} bytes."
    too_large = VlmqError(ErrorCode.MEDIA_TOO_LARGE, message, param=param)
    declared = response.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise too_large
    size, digest = 0, hashlib.sha256()
    for chunk in response.iter_content(CHUNK_BYTES):
        size += len(chunk)
        if size > limit_bytes:
            raise too_large
        digest.update(chunk)
        sink.write(chunk)
    # Without a length, a connection that was cut at the deadline reads like one that ended.
    if deadline.passed:
        raise requests.Timeout
    return digest.hexdigest()


def _not_public(param: str | None) -> VlmqError:
    return VlmqError(ErrorCode.URL_BLOCKED, "The URL points to an address that is not public.", param=param)


def _refused(why: str, param: str | None) -> VlmqError:
    return VlmqError(ErrorCode.REDIRECT_REFUSED, f"The URL redirects {why}.", param=param)


def _cause(error: BaseException) -> str:
    """A few words for what went wrong; the exception's own text may hold resolved addresses."""
    links: list[BaseException] = []
    pending: list[object] = [error]
    while pending:
        link = pending.pop()
        if isinstance(link, BaseException) and not any(link is seen for seen in links):
            links.append(link)
            pending += [getattr(link, "reason", None), link.__cause__, link.__context__, *link.args]
    for kinds, words in _CAUSES:
        if any(isinstance(link, kinds) for link in links):
            return words
    return "the connection was cut"
