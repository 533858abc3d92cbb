"""docs/coverage.md names tests; each of them is there."""

import re

import pytest

from tests.pages import Page, is_there

PAGE = Page("coverage.md")


@pytest.mark.parametrize(("file", "name"), PAGE.tests)
def test_a_test_that_the_page_names_exists(file: str, name: str) -> None:
    assert is_there(file, name)


def test_every_row_names_a_test_of_its_own_name() -> None:
    rows = PAGE.rows()
    assert len(rows) >= 30
    named = re.compile(r"`tests/[\w/]+\.py::test_\w+`|`make demo`")
    assert [row for row in rows if not named.search(row)] == []
    assert [file for file, name in PAGE.tests if not name] == ["tests/guides/test_coverage_page.py"]
