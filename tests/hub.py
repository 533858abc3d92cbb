"""A hub of our own: serves folders as repositories, in the few words of the protocol that downloads speak."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "a" * 40
CHUNK = 64 * 1024


class Hub:
    """`gated` repositories want the token; the next `broken_downloads` end in the middle of a file's bytes."""

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.repositories = repositories
        self.gated: set[str] = set()
        self.token = "hf_known"
        self.broken_downloads = 0
        self.sent: dict[str, int] = {}
        self.last_start: dict[str, int] = {}
        self.paused = threading.Event()
        self.resumed = threading.Event()
        self.resumed.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def in_place_of_the_real_one(self, cache: Path) -> Iterator["Hub"]:
        """While the block runs, the hub's client asks here, and keeps what it gets in `cache`."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(constants, "HF_HUB_CACHE", str(cache))
            patch.setattr(constants, "ENDPOINT", self.url)
            template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
            patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            with self.running():
                yield self

    @contextmanager
    def running(self) -> Iterator["Hub"]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.resumed.set()
            self._server.shutdown()
            self._server.server_close()


class _Answers(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        words = self.path.partition("?")[0].strip("/").split("/")
        is_api = words[:2] == ["api", "models"]
        words = words[2:] if is_api else words
        name, rest = "/".join(words[:2]), words[2:]
        folder = self.hub.repositories.get(name)
        if folder is None:
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif is_api and rest[:1] == ["revision"]:
            self._tell_revision(name, rest[1])
        elif is_api and rest[:1] == ["tree"]:
            files = [
                {
                    "type": "file",
                    "oid": "b" * 40,
                    "size": path.stat().st_size,
                    "path": path.relative_to(folder).as_posix(),
                }
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            ]
            self._send(json.dumps(files).encode())
        elif rest[:1] == ["resolve"] and (folder / "/".join(rest[2:])).is_file():
            if name in self.hub.gated and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
                self._refuse(403, "GatedRepo", f"Access to model {name} is restricted")
                return
            self._send_file(folder / "/".join(rest[2:]))
        else:
            self._refuse(404, "EntryNotFound", "Entry not found")

    def _tell_revision(self, name: str, revision: str) -> None:
        if revision in ("main", COMMIT):
            self._send(json.dumps({"id": name, "sha": COMMIT, "siblings": [], "tags": []}).encode())
        else:
            self._refuse(404, "RevisionNotFound", "Revision not found")

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _send_file(self, path: Path) -> None:
        content = path.read_bytes()
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.hub.last_start[path.name] = start
            self._write(path.name, content, start)

    def _write(self, name: str, content: bytes, start: int) -> None:
        breaks = self.hub.broken_downloads > 0 and len(content) - start > CHUNK
        end = start + (len(content) - start) // 2 if breaks else len(content)
        for place in range(start, end, CHUNK):
            part = content[place : min(place + CHUNK, end)]
            self.wfile.write(part)
            self.hub.sent[name] = self.hub.sent.get(name, 0) + len(part)
            if place > start and not self.hub.resumed.is_set():
                self.hub.paused.set()
                self.hub.resumed.wait(60)
        if breaks:
            self.hub.broken_downloads -= 1
            self.close_connection = True
            self.connection.close()
