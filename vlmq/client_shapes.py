"""What the client relies on in an answer. One that is shaped otherwise comes from something that is not vlmq."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

# vlmq takes requests of 32 levels and answers with a few more; Python's own limit would end in a RecursionError.
MAX_DEPTH = 100

Shape = Callable[[Any], bool]


def is_shallow(value: Any) -> bool:
    """Whether JSON is nested in at most `MAX_DEPTH` levels."""
    level = [value]
    for _ in range(MAX_DEPTH):
        outer = [item for item in level if isinstance(item, dict | list)]
        level = [inner for item in outer for inner in (item.values() if isinstance(item, dict) else item)]
    return not level


def _members(required: dict[str, Shape], optional: dict[str, Shape] | None = None) -> Shape:
    """An object that has the `required` members; an `optional` one may be null or missing. Others may be there."""

    def fits(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and all(name in value and shape(value[name]) for name, shape in required.items())
            and all(value.get(name) is None or shape(value[name]) for name, shape in (optional or {}).items())
        )

    return fits


def _each(shape: Shape) -> Shape:
    return lambda value: isinstance(value, list) and all(map(shape, value))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    # Larger integers cannot be written with a point.
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _moment(value: Any) -> bool:
    try:
        datetime.fromisoformat(value).astimezone()
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _seconds(value: Any) -> bool:
    return isinstance(value, dict) and all(each is None or _number(each) for each in value.values())


_object = _members({})
_ERROR = _members({"code": _text, "message": _text})
_JOB = {
    "output_text": _text,
    "error": _ERROR,
    "outputs": _each(_members({"text": _text})),
    "usage": _object,
    "timings": _seconds,
    "metadata": _object,
}

STORED = _members({"id": _text})
JOB = _members({"id": _text, "status": _text}, _JOB | {"created_at": _moment})
JOBS = _members({"data": _each(_members({"id": _text, "status": _text, "created_at": _moment}, _JOB))})
MODELS = _members(
    {
        "data": _each(
            _members(
                {"id": _text, "state": _text, "checkpoint": _text},
                {"progress": _number, "details": _members({}, {"weight_bytes": _number})},
            )
        )
    }
)
DELIVERIES = _members({"data": _each(_members({"event": _text, "status": _text, "url": _text, "tries": _number}))})
REFUSAL = _members({"error": _members({"code": _text, "message": _text}, {"param": _text})})
# By the event's type; of others only their being objects is relied on.
EVENTS = {"delta": _members({"text": _text}), "status": _members({"status": _text})}
EVENT = _object
EVENT_ID = re.compile("[0-9]{1,18}-[0-9]{1,18}")
