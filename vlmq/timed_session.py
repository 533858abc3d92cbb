"""HTTP sessions whose calls end at one deadline and, unless told otherwise, reach public addresses only."""

import ipaddress
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from requests_hardened.ip_filter import InvalidIPAddress
from requests_hardened.ip_filter_adapter import IPFilterAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool

from vlmq.url_rules import is_public

CONNECT_TIMEOUT_S = 10.0


class Deadline:
    """Cuts the connections it watches when the time is up.

    Timeouts of a socket count from byte to byte: a server that sends one a second never meets them, neither in the
    body nor in the headers. Looking up a name is not cut; the resolver's own timeouts bound it.
    """

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._at

    def timeouts(self) -> tuple[float, float]:
        """For requests: seconds to connect, seconds between two bytes."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise requests.Timeout
        return min(CONNECT_TIMEOUT_S, left), left

    def end_now(self) -> None:
        """The time is up."""
        self._at = time.monotonic()
        self._cut()

    def watch(self, connection: socket.socket) -> None:
        with self._lock:
            # A duplicate stays valid when TLS takes the descriptor away from the socket.
            self._sockets.append(connection.dup())
        if self.passed:
            self._cut()

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            while self._sockets:
                self._sockets.pop().close()

    def _cut(self) -> None:
        with self._lock:
            for connection in self._sockets:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class TimedSession(requests.Session):
    """A session that belongs to one `Deadline` and leaves redirects to its caller."""

    def __init__(self, deadline: Deadline, *, allow_private: bool) -> None:
        super().__init__()
        # No proxies, no .netrc: the environment has no say about where users' URLs go.
        self.trust_env = False
        for scheme in ("http", "https"):
            adapter = _WatchedAdapter() if allow_private else _PublicAdapter(is_https_proto=scheme == "https")
            adapter.deadline = deadline
            self.mount(f"{scheme}://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        # Asked even when redirects are not followed, and then the whole body of the redirect is read into memory.
        return None

    def redirect_target(self, response: requests.Response) -> str | None:
        """The `Location` of a redirect, if `response` is one."""
        return super().get_redirect_target(response)


class _WatchedAdapter(HTTPAdapter):
    deadline: Deadline

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _watched(self.deadline, tls=pool.scheme == "https")
        return pool


class _PublicAdapter(_WatchedAdapter, IPFilterAdapter):
    """Resolves a name once, refuses an address that is not public and connects to just that address."""

    def build_connection_pool_key_attributes(self, *args: Any, **kwargs: Any) -> Any:
        host, pool = super().build_connection_pool_key_attributes(*args, **kwargs)
        # The filter lets some through that translate to inner addresses, such as ::127.0.0.1.
        if not is_public(ipaddress.ip_address(host["host"].strip("[]"))):
            raise InvalidIPAddress
        return host, pool


def _watched(deadline: Deadline, *, tls: bool) -> type[HTTPConnection]:
    kind: type[HTTPConnection] = HTTPSConnection if tls else HTTPConnection

    class Watched(kind):  # type: ignore[valid-type, misc]
        def _new_conn(self) -> socket.socket:
            connection: socket.socket = super()._new_conn()
            deadline.watch(connection)
            return connection

    return Watched
