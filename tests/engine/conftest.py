from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from engine.checkpoint import Checkpoint, load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.types import CheckpointSettings, Picture, TemplateCall, VideoClip
from vlmq.chat_templates import render_chat
from vlmq.config import BUNDLED_CHECKPOINT
from vlmq.errors import VlmqError


def render_here(call: TemplateCall) -> str:
    """In this process, for templates that a test wrote; a worker has a child for it."""
    try:
        return render_chat(call.source, call.messages, call.variables, continues=call.continues)
    except VlmqError as error:
        error.param = "chat_template"
        raise


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    torch.set_num_threads(1)  # two busy cores are slower together than one
    return load_checkpoint(CheckpointSettings(str(BUNDLED_CHECKPOINT), device="cpu"))


@pytest.fixture(scope="session")
def shared_engine(checkpoint: Checkpoint) -> Iterator[GenerateEngine]:
    engine = GenerateEngine(checkpoint, render_here)
    yield engine
    engine.close()


@pytest.fixture
def engine(shared_engine: GenerateEngine) -> GenerateEngine:
    """The bundled checkpoint; whatever an earlier test left unread is gone."""
    while shared_engine.next_step(0.001):
        pass
    return shared_engine


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the bundled one's architecture that learned nothing, so its choices are open."""
    folder = tmp_path_factory.mktemp("random-vlm")
    AutoProcessor.from_pretrained(BUNDLED_CHECKPOINT).save_pretrained(folder)  # type: ignore[no-untyped-call]
    config = AutoConfig.from_pretrained(BUNDLED_CHECKPOINT)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def random_engine(random_folder: Path) -> Iterator[GenerateEngine]:
    engine = GenerateEngine(load_checkpoint(CheckpointSettings(str(random_folder), device="cpu")))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def pictures() -> list[Picture]:
    """Three pictures of different sizes, each with one bright block."""
    made = []
    for index, (height, width) in enumerate([(64, 64), (48, 96), (120, 60)]):
        picture = np.full((height, width, 3), 40, np.uint8)
        picture[8 : 8 + height // 3, 8 : 8 + width // 3, index] = 230
        made.append(picture)
    return made


@pytest.fixture(scope="session")
def clip() -> VideoClip:
    """Six frames of a block that moves to the right."""
    frames = np.full((6, 64, 64, 3), 40, np.uint8)
    for index in range(6):
        frames[index, 20:36, 4 + 8 * index : 20 + 8 * index, 2] = 230
    indices = tuple(range(0, 60, 10))
    return VideoClip(frames, tuple(index / 20 for index in indices), indices, fps=20.0, total_frames=60, duration=3.0)
