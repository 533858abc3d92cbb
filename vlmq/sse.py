"""Server-sent events, read from the bytes of a response as they come."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One event: `id` and `event` as sent, `data` with its lines joined."""

    id: str
    event: str
    data: str


def read_events(chunks: Iterable[bytes]) -> Iterator[Message]:
    """Messages that are complete; comments (heartbeats) are skipped, and a message that breaks off is dropped."""
    fields: dict[str, list[str]] = {}
    last_id = ""
    for line in _lines(chunks):
        if not line:
            if "data" in fields:
                last_id = fields.get("id", [last_id])[-1]
                yield Message(last_id, fields.get("event", ["message"])[-1], "\n".join(fields["data"]))
            fields = {}
            continue
        name, _, value = line.partition(":")
        if name:
            fields.setdefault(name, []).append(value.removeprefix(" "))


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        # A chunk may end inside a character or between the two bytes of a line's end.
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
