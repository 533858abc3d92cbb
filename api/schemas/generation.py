"""The `generation` of a job: how its answer is generated."""

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.strict import Strict

MAX_SEED = 2**63 - 1
# Below these, scores leave the range of floats and nothing can be drawn from them.
MIN_TEMPERATURE = 0.01
MIN_PENALTY = 0.01

_StopString = Annotated[str, Field(min_length=1, max_length=256)]


def _stop_kind(value: Any) -> str | None:
    return "<one>" if isinstance(value, str) else "<several>" if isinstance(value, list) else None


class Generation(Strict):
    """How the answer is generated; what is left out is as the checkpoint says."""

    max_new_tokens: int | None = Field(None, ge=1)
    min_new_tokens: int | None = Field(None, ge=0)
    do_sample: bool | None = None
    temperature: float | None = Field(
        None, ge=0, le=2, description=f"0 takes the likeliest token each time; otherwise at least {MIN_TEMPERATURE}"
    )
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    repetition_penalty: float | None = Field(None, ge=MIN_PENALTY, le=10)
    stop: (
        Annotated[
            Annotated[_StopString, Tag("<one>")] | Annotated[list[_StopString], Field(max_length=16), Tag("<several>")],
            Discriminator(
                _stop_kind,
                custom_error_type="text_or_list",
                custom_error_message="Takes text, or a list of texts",
            ),
        ]
        | None
    ) = Field(None, description="generation ends before any of these")
    seed: int | None = Field(None, ge=0, le=MAX_SEED)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.do_sample and self.temperature == 0:
            raise PydanticCustomError("range", "Must be above 0 when do_sample is true", {"field": "temperature"})
        if self.temperature and self.temperature < MIN_TEMPERATURE:
            raise PydanticCustomError(
                "range", "Must be 0, or at least {least}", {"field": "temperature", "least": MIN_TEMPERATURE}
            )
        if (
            self.min_new_tokens is not None
            and self.max_new_tokens is not None
            and self.min_new_tokens > self.max_new_tokens
        ):
            raise PydanticCustomError("range", "Must not be above max_new_tokens", {"field": "min_new_tokens"})
        return self

    def stored(self) -> dict[str, Any]:
        """What the worker reads: only what was named, `stop` always a list."""
        values = self.model_dump(exclude_none=True)
        if isinstance(values.get("stop"), str):
            values["stop"] = [values["stop"]]
        return values
