"""A webhook receiver for the demo, written as a user would write one: verify first, then believe."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from standardwebhooks import Webhook, WebhookVerificationError


class Receiver:
    """Listens on a free port of this machine, and notes for each job whether its webhook's signature was right."""

    def __init__(self, secret: str) -> None:
        self._webhook = Webhook(secret)
        self._verdicts: dict[str, str] = {}
        self._arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(receiver.receive(body, dict(self.headers.items())))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep the terminal for the demo."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhook"
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def receive(self, body: bytes, headers: dict[str, str]) -> int:
        """Verify one message and note it; returns the HTTP status for it."""
        try:
            message = self._webhook.verify(body, headers)
        except WebhookVerificationError:
            return 400
        with self._arrived:
            self._verdicts[message["data"]["id"]] = "verified"
            self._arrived.notify_all()
        return 204

    def wait_for(self, job_id: str, timeout_s: float) -> str:
        """ "verified", or "missing" if no rightly signed message about the job came in time."""
        with self._arrived:
            self._arrived.wait_for(lambda: job_id in self._verdicts, timeout_s)
            return self._verdicts.get(job_id, "missing")
