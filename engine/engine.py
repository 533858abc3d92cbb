"""What every engine can do: many callers prepare and submit sequences, one reads the events of all of them."""

from typing import Protocol

from engine.types import EngineDescription, Event, GenerationParameters, PromptRequest, Sequence


class Engine(Protocol):
    """A loaded model and the thread that owns it."""

    @property
    def description(self) -> EngineDescription: ...

    def prepare(
        self, id: str, prompt: PromptRequest, parameters: GenerationParameters, *, deadline: float | None = None
    ) -> Sequence:
        """Render, process and count in the caller's thread; nothing runs yet.

        Raises:
            VlmqError: TEMPLATE_ERROR, CONTEXT_LENGTH_EXCEEDED, UNSUPPORTED_MODALITY, UNSUPPORTED_PARAMETER,
                INVALID_REQUEST, IMAGE_INVALID or VIDEO_INVALID.
        """
        ...

    def submit(self, sequence: Sequence) -> None:
        """Queue it. Its events end with exactly one `Finished` or `Failed`, unless the process dies.

        Raises:
            VlmqError: UNAVAILABLE after `close`, or when the engine can do no more.
            ValueError: a sequence of this id is still alive.
        """
        ...

    def cancel(self, id: str) -> None:
        """End a submitted sequence within two steps, running or not; nothing happens for one that is not alive.

        A sequence is known from `submit` on: whoever cancels earlier looks at its own flag after submitting.
        """
        ...

    def next_step(self, timeout: float) -> list[Event]:
        """The events of one step, of all sequences, in order; empty after `timeout` seconds. For one reader."""
        ...

    def last_progress(self) -> float:
        """`time.monotonic()` of the last step, or now when there is nothing to do.

        Minus infinity when the engine can do no more (its thread or the accelerator's context is lost): the process
        must be replaced, and no further events come.
        """
        ...

    def close(self) -> None:
        """End all sequences as cancelled, and the thread. Their last events can still be read."""
        ...
