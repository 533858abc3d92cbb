"""Files below a root, opened while somebody changes what lies there."""

import os
import stat
from pathlib import Path

import pytest

from vlmq.errors import ErrorCode, VlmqError
from vlmq.rooted import open_beneath


@pytest.mark.parametrize("path", ["cat.png", "inner/cat.png"])
def test_a_link_that_appears_between_the_look_and_the_opening_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "cat.png").write_bytes(b"secret")
    (root / "cat.png").symlink_to(outside / "cat.png")
    (root / "inner").symlink_to(outside)
    # As if the look had come before the link.
    monkeypatch.setattr(stat, "S_ISLNK", lambda _mode: False)
    with pytest.raises(VlmqError) as refusal:
        os.close(open_beneath(root, path, param="p"))
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.FILE_NOT_FOUND, "p")
    assert str(tmp_path) not in refusal.value.message
