"""A webhook receiver on a real port, that answers as its test says, and settings to send to it."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import SecretStr
from standardwebhooks import Webhook

from vlmq.config import Settings
from vlmq.signing import new_master_secret

MASTER = new_master_secret()
GIVE_UP_AFTER = (0.0, 0.0)


def adjusted(settings: Settings, **webhooks: object) -> Settings:
    values: dict[str, object] = {"secret": SecretStr(MASTER), "timeout_s": 1.0, "retry_after_s": GIVE_UP_AFTER}
    return settings.model_copy(update={"webhooks": settings.webhooks.model_copy(update=values | webhooks)})


@dataclass
class Request:
    """One POST as it came in."""

    headers: dict[str, str]
    body: bytes
    handler: BaseHTTPRequestHandler

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """The body as JSON, if the signature fits."""
        return Webhook(secret).verify(self.body, self.headers)

    def reset_connection(self) -> None:
        # Linger for zero seconds: the peer sees a reset instead of an orderly end.
        self.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.handler.connection.close()


@dataclass
class Receiver:
    """Keeps what it received; `answer` returns a status, or None when it has answered by itself (or will not)."""

    answer: Callable[[Request], int | None]
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ids(self) -> list[str]:
        return [request.id for request in self.requests]

    def hang(self, _request: Request) -> None:
        """An answer that never comes."""
        self.closing.wait(60)

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        request = Request({name.lower(): value for name, value in handler.headers.items()}, body, handler)
        with self._lock:
            self.requests.append(request)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            status = self.answer(request)
        finally:
            with self._lock:
                self.at_once -= 1
        if status is None:
            handler.close_connection = True
            return
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Callers that hang up are part of these tests."""


@contextmanager
def receiving(answer: Callable[[Request], int | None] = lambda _: 200) -> Iterator[Receiver]:
    receiver = Receiver(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.handle(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield receiver
    finally:
        receiver.closing.set()
        server.shutdown()
        server.server_close()
