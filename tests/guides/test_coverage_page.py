"""docs/coverage.md names tests; each of them is there."""

import pytest

from tests.pages import Page, is_there

PAGE = Page("coverage.md")


@pytest.mark.parametrize(("file", "name"), PAGE.tests)
def test_a_test_that_the_page_names_exists(file: str, name: str) -> None:
    assert is_there(file, name)


def test_every_row_names_a_test() -> None:
    rows = PAGE.rows()
    assert len(rows) > 20
    assert [row for row in rows if "`tests/" not in row and "`make demo`" not in row] == []
