"""What is said of a checkpoint that cannot be loaded."""

import pytest

from engine.checkpoint import load_checkpoint
from engine.types import CheckpointSettings
from vlmq.errors import ErrorCode, VlmqError


def failure(settings: CheckpointSettings) -> str:
    with pytest.raises(VlmqError) as caught:
        load_checkpoint(settings)
    assert caught.value.code == ErrorCode.MODEL_LOAD_FAILED
    assert "\n" not in caught.value.message
    return caught.value.message
