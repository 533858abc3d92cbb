"""What the service answers, as the client hands it on."""

from dataclasses import dataclass
from typing import Any

FINAL = frozenset({"completed", "failed", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class Event:
    """One message of a job's stream; `id` is `attempt-sequence`."""

    id: str
    type: str
    data: dict[str, Any]

    @property
    def attempt(self) -> int:
        return int(self.id.partition("-")[0])

    @property
    def seq(self) -> int:
        return int(self.id.partition("-")[2])

    @property
    def is_final(self) -> bool:
        return self.type == "status" and self.data.get("status") in FINAL


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the service tells of it; `raw` is the whole answer."""

    raw: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.raw["id"])

    @property
    def status(self) -> str:
        return str(self.raw["status"])

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def output_text(self) -> str:
        return str(self.raw.get("output_text") or "")

    @property
    def error(self) -> dict[str, Any] | None:
        return self.raw.get("error")
