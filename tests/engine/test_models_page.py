"""The table in docs/models.md says what the families' tests show, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from tests.engine import test_families, test_families_quantized
from tests.engine.families import FAMILIES
from tests.engine.families.family import Case, Family
from tests.journeys import test_families as over_http

PAGE = Path(__file__).parent.parent.parent / "docs" / "models.md"
# Each column is a conversation that `test_families.py` runs or sees refused.
COLUMNS: dict[str, Case] = {
    "text alone": "text",
    "image": "image",
    "several images": "images",
    "several turns": "turns",
    "system role": "system",
    "video": "video",
    "images with video": "image and video",
}
HEADER = ["family", "for example", *COLUMNS, "quantized", "batched"]


def row(family: Family) -> list[str]:
    cells = ["yes" if case in family.cases else "no" for case in COLUMNS.values()]
    return [family.title, f"`{family.example}`", *cells, "int8", "one at a time"]


def lines() -> list[list[str]]:
    found = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found]


def test_the_table_has_a_row_for_each_family_and_no_other() -> None:
    header, _rule, *rows = lines()
    assert header == HEADER
    assert rows == [row(family) for family in FAMILIES.values()]


def test_every_cell_is_a_test() -> None:
    assert sorted([*test_families.CELLS, *test_families.GAPS]) == sorted(
        (name, case) for name in FAMILIES for case in COLUMNS.values()
    )
    parametrized: tuple[Any, ...] = (
        test_families.test_sequences_run_one_at_a_time_each_with_its_own_images,
        test_families_quantized.test_eight_bits_hardly_change_what_a_family_sees,
        over_http.test_a_job_over_http_ends_with_what_plain_transformers_says,
    )
    for test in parametrized:
        (mark,) = (mark for mark in test.pytestmark if mark.name == "parametrize")
        assert list(mark.args[1]) == list(FAMILIES), test.__name__


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_what_a_family_needs_to_be_told_about_is_on_the_page(family: Family) -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert not family.remark or f"{family.title}: {family.remark}" in text
