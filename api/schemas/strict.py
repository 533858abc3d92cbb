"""What all request models share: unknown fields are refused by name."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class Strict(BaseModel):
    """A part of a JSON body. Nothing is converted ("5" is no number) and nothing is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    # Fields that are known but not there yet, and what to do instead.
    not_yet: ClassVar[dict[str, str]] = {}
    # Fields that are known and will not be there, and why.
    refused: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_asks_for_nothing(cls, values: Any) -> Any:
        """A field that is not there may be sent with the value that it has anyway."""
        if not isinstance(values, dict):
            return values
        absent = cls.not_yet.keys() | cls.refused.keys()
        return {name: value for name, value in values.items() if name not in absent or not _asks_for_nothing(value)}


class CachedSchema(BaseModel):
    """Flask-openapi asks for the schema of headers and queries anew at every request, which costs a millisecond."""

    @classmethod
    @cache
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        return super().model_json_schema(*args, **kwargs)


class Query(Strict, CachedSchema):
    """Query parameters, which arrive as text."""

    model_config = ConfigDict(extra="forbid", strict=False)


def _asks_for_nothing(value: Any) -> bool:
    return value is None or value is False or value == {}


def model_at(title: str, location: Iterable[int | str]) -> type[Strict] | None:
    """The request model at this place of pydantic's location, below the model that pydantic calls `title`."""
    models = [model for model in _all(Strict) if model.__name__ == title]
    for name in location:
        # What tells the members of a union apart may be the name of a field, too.
        told_apart = [model for model in models if len(models) > 1 and name in _types_of(model)]
        inside = [field.annotation for model in models if (field := model.model_fields.get(str(name)))]
        if told_apart:
            models = told_apart
        elif inside:
            models = [model for annotation in inside for model in _models_in(annotation)]
    return models[0] if len(models) == 1 else None


def _all(model: type[Strict]) -> Iterator[type[Strict]]:
    for child in model.__subclasses__():
        yield child
        yield from _all(child)


def _models_in(annotation: Any) -> Iterator[type[Strict]]:
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _types_of(model: type[Strict]) -> tuple[Any, ...]:
    field = model.model_fields.get("type")
    return get_args(field.annotation) if field else ()
