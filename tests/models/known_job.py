"""A job as a model of it in memory knows it: what its row must say."""

from dataclasses import dataclass

from models.job import JobStatus
from models.lifecycle import Change

MAX_ATTEMPTS = 3


@dataclass
class Known:
    """What the model knows of a job."""

    hears: list[str]  # the events that its webhook subscribes to
    priority: int = 5
    status: JobStatus = JobStatus.QUEUED
    fence: int = 0
    given_back: int = 0
    crashes: int = 0
    holder: str | None = None
    lease_over: bool = False
    too_late: bool = False
    cancel_wanted: bool = False
    row_at_its_end: tuple[object, ...] | None = None

    @property
    def tries(self) -> int:
        return self.fence - self.given_back

    def came_to_nothing(self, change: Change | None) -> None:
        """An attempt failed in a way that counts."""
        if self.cancel_wanted:
            self.ended(change, JobStatus.CANCELLED)
        elif self.tries >= MAX_ATTEMPTS:
            self.ended(change, JobStatus.FAILED)
        else:
            self.queued_again(change)

    def lost_its_worker(self, change: Change | None) -> None:
        """Its first crash, which a neighbour may have caused, does not count."""
        self.crashes += 1
        if self.crashes > 1:
            self.came_to_nothing(change)
        elif self.cancel_wanted:
            self.ended(change, JobStatus.CANCELLED)
        else:
            self.given_back += 1
            self.queued_again(change)

    def ended(self, change: Change | None, status: JobStatus) -> None:
        self.status, self.holder = status, None
        assert change is not None
        assert (change.status, change.attempt) == (status, self.fence)
        assert (change.delivery_id is not None) == (f"job.{status.value}" in self.hears)

    def queued_again(self, change: Change | None) -> None:
        self.status, self.holder, self.lease_over = JobStatus.QUEUED, None, False
        assert change is not None
        assert (change.status, change.attempt, change.delivery_id) == (JobStatus.QUEUED, self.fence, None)
