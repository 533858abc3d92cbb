"""docs/bad_input.md says what is refused, and with which code; the tests that it names are there."""

import re

import pytest

from tests.pages import Page, is_there
from vlmq.errors import ErrorCode

PAGE = Page("bad_input.md")


@pytest.mark.parametrize(("file", "name"), PAGE.tests)
def test_a_test_that_the_page_names_exists(file: str, name: str) -> None:
    assert is_there(file, name)


def test_every_row_names_a_test_of_its_own_name() -> None:
    rows = PAGE.rows()
    assert len(rows) > 50
    assert [row for row in rows if not re.search(r"`tests/[\w/]+\.py::test_\w+`", row)] == []


def test_every_code_on_the_page_is_one() -> None:
    answers = [row.split(" | ")[1] for row in PAGE.rows()]
    named = {code for answer in answers for code in re.findall(r"`(\w+)`", answer)}
    assert named <= {code.value for code in ErrorCode}
