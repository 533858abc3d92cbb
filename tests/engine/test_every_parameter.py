"""Nothing that transformers offers is forgotten, between it, the door and the engine."""

from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from api.schemas.generation import Generation
from api.schemas.generation_names import ALIASES, REFUSED
from engine.generation_parameters import GenerationParameters

# Attributes of transformers' own bookkeeping, which nobody sets.
INTERNAL = {"transformers_version"}


def test_every_field_of_transformers_is_either_taken_or_refused() -> None:
    config: Any = GenerationConfig()  # type: ignore[no-untyped-call]
    theirs = {name for name in vars(config) if not name.startswith("_")} - INTERNAL
    assert theirs - Generation.model_fields.keys() - REFUSED.keys() == set()


def test_the_engine_takes_every_parameter_that_the_door_lets_in() -> None:
    stored = {ALIASES.get(name, name) for name in Generation.model_fields}
    assert stored == set(GenerationParameters.__dataclass_fields__)


def test_the_page_about_generation_has_every_name() -> None:
    page = (Path(__file__).parents[2] / "docs" / "generation.md").read_text(encoding="utf-8")
    assert {name for name in (*Generation.model_fields, *REFUSED) if f"`{name}`" not in page} == set()
