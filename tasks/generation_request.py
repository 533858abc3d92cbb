"""What a job's stored request says about its generation -> what the engine takes."""

from typing import Any

from engine.generation_parameters import GenerationParameters


def generation_parameters(stored: dict[str, Any]) -> GenerationParameters:
    return GenerationParameters(**{name: _frozen(value) for name, value in stored.items()})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
