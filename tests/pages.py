"""Pages of the documentation whose tables name tests: that each of them is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Page:
    """A page below docs/, and the tests that it names as `tests/….py` or `tests/….py::test_…`."""

    def __init__(self, name: str) -> None:
        self.text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        self.tests = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", self.text)))

    def rows(self) -> list[str]:
        """The rows of its tables, without their headers."""
        lines = self.text.splitlines()
        return [
            line
            for line, after in zip(lines, [*lines[1:], ""], strict=True)
            if line.startswith("| ") and not after.startswith("|---")
        ]


def is_there(file: str, name: str) -> bool:
    """Whether the file has a test of this name; of any name, where none is given."""
    path = ROOT / file
    return (
        path.is_file()
        and re.search(rf"^def {name}\(" if name else r"^def test_", path.read_text("utf-8"), re.M) is not None
    )
