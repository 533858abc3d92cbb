"""What may happen to the decoding processes, done to real ones."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from media.load import LocalFile, MediaLoader, VideoSampling
from tests.media.conftest import MakeLoader
from tests.media.processes import busy_children, children_of, is_gone, until
from tests.media.samples import every_frame, image_bytes, moving, picture, repeat_gif, write_video
from vlmq.errors import ErrorCode, VlmqError

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys
from pathlib import Path
from media.load import LocalFile, MediaLoader
from vlmq.config import Settings

loader = MediaLoader(Settings(data_dir=Path(sys.argv[1]), _env_file=None))
loader.load_image(LocalFile(Path(sys.argv[2])), param="p")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def small(tmp_path: Path) -> LocalFile:
    path = tmp_path / "small.png"
    path.write_bytes(image_bytes(picture(32, 32), "PNG"))
    return LocalFile(path)


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough to be caught at work."""
    return repeat_gif(tmp_path_factory.mktemp("long") / "long.gif", picture(96, 96), 6_000)


class Decoding(threading.Thread):
    """Four frames of the long video, in the background."""

    def __init__(self, loader: MediaLoader, path: Path) -> None:
        super().__init__(daemon=True)
        self._loader = loader
        self._path = path
        self.indices: tuple[int, ...] = ()
        self.error: VlmqError | None = None

    def run(self) -> None:
        try:
            sampling = VideoSampling(num_frames=4)
            self.indices = self._loader.load_video(LocalFile(self._path), sampling, param="p").frame_indices
        except VlmqError as error:
            self.error = error


def servers() -> set[int]:
    return {p for p in children_of(os.getpid()) if b"media.decoder_server" in Path(f"/proc/{p}/cmdline").read_bytes()}


def make_with_server(make_loader: MakeLoader, **limits: object) -> tuple[MediaLoader, int]:
    before = servers()
    loader = make_loader(**limits)
    (server,) = servers() - before
    return loader, server


def test_decoding_processes_hold_no_torch() -> None:
    code = (
        "import sys, media.decoder_server; from media.preload import preload; preload();"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(loaded.stdout.split())
    assert {"av", "PIL", "numpy"} <= modules
    assert not modules & {
        "torch",
        "torchvision",
        "transformers",
        "sqlalchemy",
        "celery",
        "redis",
        "requests",
        "pydantic",
    }


def test_a_child_at_work_can_open_nothing_and_ends_with_its_job(make_loader: MakeLoader, long_video: Path) -> None:
    loader, server = make_with_server(make_loader)
    decoding = Decoding(loader, long_video)
    decoding.start()
    until(lambda: bool(busy_children(server)))
    (child,) = busy_children(server)
    limits = Path(f"/proc/{child}/limits").read_text()
    assert f"Max address space         {2 * 2**30}" in limits
    environment = Path(f"/proc/{server}/environ").read_bytes().split(b"\0")
    assert {entry.partition(b"=")[0] for entry in environment if entry} == {
        b"PYTHONPATH",
        b"OPENBLAS_NUM_THREADS",
        b"OMP_NUM_THREADS",
    }
    decoding.join(60)
    assert decoding.indices == (0, 1500, 3000, 4500)
    until(lambda: is_gone(child))


def test_children_killed_while_waiting_are_replaced(make_loader: MakeLoader, small: LocalFile) -> None:
    loader, server = make_with_server(make_loader)
    loader.load_image(small, param="p")
    for _ in range(3):
        for child in children_of(server):
            with suppress(ProcessLookupError):  # one that has just done its job
                os.kill(child, signal.SIGKILL)
        assert np.array_equal(loader.load_image(small, param="p").pixels, picture(32, 32))


def test_a_child_killed_at_work_costs_time_and_not_the_job(make_loader: MakeLoader, long_video: Path) -> None:
    loader, server = make_with_server(make_loader)
    decoding = Decoding(loader, long_video)
    decoding.start()
    until(lambda: bool(busy_children(server)))
    os.kill(busy_children(server)[0], signal.SIGKILL)
    decoding.join(60)
    assert decoding.indices == (0, 1500, 3000, 4500)


def test_an_input_that_kills_every_child_is_invalid(make_loader: MakeLoader, long_video: Path) -> None:
    loader, server = make_with_server(make_loader)
    decoding = Decoding(loader, long_video)
    decoding.start()
    killed: set[int] = set()
    while decoding.is_alive():
        for child in set(busy_children(server)) - killed:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGSEGV)
            killed.add(child)
    assert decoding.error is not None
    assert decoding.error.code is ErrorCode.VIDEO_INVALID
    assert len(killed) == 2


def test_a_server_killed_at_work_is_started_again(make_loader: MakeLoader, small: LocalFile, long_video: Path) -> None:
    loader, server = make_with_server(make_loader)
    decoding = Decoding(loader, long_video)
    decoding.start()
    until(lambda: bool(busy_children(server)))
    family = [server, *children_of(server)]
    os.kill(server, signal.SIGKILL)
    assert np.array_equal(loader.load_image(small, param="p").pixels, picture(32, 32))
    decoding.join(60)
    assert decoding.indices == (0, 1500, 3000, 4500)
    until(lambda: all(is_gone(pid) for pid in family))


def test_decoding_beyond_its_deadline_is_killed(make_loader: MakeLoader, long_video: Path, small: LocalFile) -> None:
    loader, server = make_with_server(make_loader, decode_timeout_s=0.1)
    decoding = Decoding(loader, long_video)
    decoding.start()
    decoding.join(20)
    assert decoding.error is not None
    assert decoding.error.code is ErrorCode.MEDIA_TIMEOUT
    until(lambda: not busy_children(server))


def test_closing_leaves_nothing_running(make_loader: MakeLoader, small: LocalFile) -> None:
    loader, server = make_with_server(make_loader)
    loader.load_image(small, param="p")
    family = [server, *children_of(server)]
    loader.close()
    until(lambda: all(is_gone(pid) for pid in family))


def test_nothing_is_left_when_the_worker_is_killed(tmp_path: Path, small: LocalFile) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "data"), str(small.path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        (server,) = children_of(worker.pid)
        until(lambda: len(children_of(server)) >= 2)
        family = [server, *children_of(server)]
        worker.kill()
    until(lambda: all(is_gone(pid) for pid in family))


def test_many_threads_get_each_their_own_pixels(loader: MediaLoader, tmp_path: Path) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        path = tmp_path / str(seed)
        path.write_bytes(image_bytes(picture(100 + seed, 80, seed), "PNG"))
        for _ in range(10):
            pixels = loader.load_image(LocalFile(path), param="p").pixels
            if not np.array_equal(pixels, picture(100 + seed, 80, seed)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_pixels_and_descriptors_do_not_pile_up(loader: MediaLoader, small: LocalFile) -> None:
    loader.load_image(small, param="p")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        loader.load_image(small, param="p")
    kept = [loader.load_image(small, param="p").pixels for _ in range(3)]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + len(kept)
    assert len({pixels.ctypes.data for pixels in kept}) == 3


def test_frames_are_mapped_not_copied_through_a_pipe(loader: MediaLoader, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video", "mp4", "libx264", moving(10))
    frames = loader.load_video(LocalFile(path), VideoSampling(num_frames=10), param="p").frames
    assert not frames.flags.owndata
    assert frames.flags.writeable
    assert np.array_equal(frames, every_frame(path))
