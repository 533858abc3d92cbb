"""A running stack with the bundled model, and a web server with what the guides' examples name."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from pytest_httpserver import HTTPServer

from checkpoints.mp4 import write_mp4
from checkpoints.scenes import Clip, Scene, random_clip, random_scene
from tests.guides.ask import Service
from tests.journeys.stack import Stack
from vlmq.config import BUNDLED_CHECKPOINT

# The guide asks for 32 frames, of which the bundled checkpoint has learned 16.
MODELS = {"tiny-vlm": {"checkpoint": str(BUNDLED_CHECKPOINT), "max_frames": 32}}


@pytest.fixture(scope="session")
def cats() -> Scene:
    """In the place of the guide's first picture: one thing."""
    return random_scene(Random(1), things=1, unseen=False)


@pytest.fixture(scope="session")
def bee(cats: Scene) -> Scene:
    """In the place of the guide's second picture: one thing of another shape and colour."""
    rng = Random(2)
    while True:
        scene = random_scene(rng, things=1, unseen=False)
        if scene.things[0].shape != cats.things[0].shape and scene.things[0].color != cats.things[0].color:
            return scene


@pytest.fixture(scope="session")
def bunny() -> Clip:
    """In the place of the guide's video: one thing moves."""
    return random_clip(Random(3), "move", unseen=False)


@pytest.fixture(scope="session")
def there_and_back(bunny: Clip) -> Clip:
    """The same, the other way round."""
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
    return replace(bunny, direction=opposite[bunny.direction])


@pytest.fixture(scope="session")
def media_root(
    tmp_path_factory: pytest.TempPathFactory, cats: Scene, bee: Scene, bunny: Clip, there_and_back: Clip
) -> Path:
    """The files, where `path` may reach them."""
    root = tmp_path_factory.mktemp("media")
    cats.draw(512).save(root / "cats.png")
    bee.draw(512).save(root / "bee.jpg", quality=92)
    write_mp4(bunny.frames(40), 4, root / "bunny.mp4")
    both = np.concatenate([bunny.frames(40), there_and_back.frames(40)])
    write_mp4(both, 4, root / "both.mp4")
    return root


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory, media_root: Path) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("guides") / "data",
        json.dumps(MODELS),
        environment={"VLMQ_MEDIA_ROOT": str(media_root)},
    ).until_killed() as stack:
        yield stack


@pytest.fixture(scope="session")
def web(media_root: Path) -> Iterator[HTTPServer]:
    """The files, where `url` finds them."""
    types = {".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4"}
    with HTTPServer(host="127.0.0.1") as server:
        for file in media_root.iterdir():
            request = server.expect_request(f"/{file.name}")
            request.respond_with_data(file.read_bytes(), content_type=types[file.suffix])
        yield server


@pytest.fixture
def service(stack: Stack) -> Iterator[Service]:
    with stack.client() as client:
        yield Service(client, stack.url)
