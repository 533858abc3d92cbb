from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from media.load import MediaLoader
from tests.media.samples import moving, write_video
from vlmq.config import Settings
from vlmq.limits import Limits

MakeLoader = Callable[..., MediaLoader]


def settings_for(folder: Path, **limits: Any) -> Settings:
    return Settings(data_dir=folder, dev_allow_private_urls=True, limits=Limits(**limits), _env_file=None)


@pytest.fixture(scope="session")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaLoader]:
    """A loader with the usual limits."""
    loader = MediaLoader(settings_for(tmp_path_factory.mktemp("data")))
    yield loader
    loader.close()


@pytest.fixture
def make_loader(tmp_path: Path) -> Iterator[MakeLoader]:
    """Makes loaders with limits of the test's own."""
    loaders: list[MediaLoader] = []

    def make(**limits: Any) -> MediaLoader:
        loaders.append(MediaLoader(settings_for(tmp_path, **limits)))
        return loaders[-1]

    yield make
    for loader in loaders:
        loader.close()


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of H.264 in MP4, 30 frames a second, with its index at the front."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    options = {"movflags": "faststart"}
    return write_video(path, "mp4", "libx264", moving(60), options={"g": "12"}, container_options=options)
