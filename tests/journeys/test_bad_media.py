"""Hostile images and videos, sent over HTTP as real bytes to a worker: the answer that each must get."""

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image

from api.app import create_app
from models.db import Database
from tests.media.bombs import (
    FOREIGN,
    animation,
    avi_claiming,
    canvas,
    endless_animation,
    gif_claiming,
    gif_without_frames,
    webp_claiming,
)
from tests.media.samples import image_bytes, moving, picture, png_bomb, repeat_gif, write_sound, write_video
from tests.tasks.test_run_job import Desk
from vlmq.config import Settings, Timing
from vlmq.events import EventLog

P = "messages.0.content.0"
Make = Callable[[Path], bytes]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


@pytest.fixture
def desk(settings: Settings, database: Database, event_log: EventLog) -> Iterator[Desk]:
    desk = Desk(settings.model_copy(update={"timing": Timing(lease_s=600, heartbeat_s=300)}), database, event_log)
    yield desk
    desk.close()


def run(client: FlaskClient, desk: Desk, *parts: dict[str, Any]) -> dict[str, Any]:
    """Send the parts and a question as a job, and let the worker run it."""
    content = [*parts, {"type": "text", "text": "hello"}]
    created = client.post("/v1/jobs", json={"model": "scripted", "messages": [{"role": "user", "content": content}]})
    assert created.json is not None
    assert created.status_code == 202, created.json
    assert desk.runner.run_next()
    return client.get(f"/v1/jobs/{created.json['id']}").json or {}


def part(kind: str, data: bytes, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "base64": base64.b64encode(data).decode()} | fields


def video(write: Callable[[Path], Path]) -> Make:
    return lambda folder: write(folder / "video").read_bytes()


def cut(data: bytes, share: float = 0.5) -> bytes:
    return data[: int(len(data) * share)]


def image(kind: str, width: int = 64, height: int = 64) -> bytes:
    return image_bytes(Image.fromarray(picture(width, height)), kind)


TWO = [100, 100]
REFUSED: dict[str, tuple[str, Make, str, str]] = {
    "a PNG of tens of KB that decodes to 1.2 GB": (
        "image",
        lambda _: png_bomb(20_000),
        "image_too_large",
        "20000 x 20000",
    ),
    "a WebP that claims 16384 x 16384": ("image", lambda _: webp_claiming(16_384), "image_too_large", "16384 x 16384"),
    "a GIF that claims 65535 x 65535": ("image", lambda _: gif_claiming(65_535), "image_too_large", "65535 x 65535"),
    "1 x 1": ("image", lambda _: image("PNG", 1, 1), "image_invalid", "1 x 1"),
    "1 x 20,000": ("image", lambda _: image("PNG", 1, 20_000), "image_invalid", "1 x 20000"),
    "a cut PNG": ("image", lambda _: cut(image("PNG")), "image_invalid", "truncated"),
    "a cut JPEG": ("image", lambda _: cut(image("JPEG", 200, 200)), "image_invalid", "truncated"),
    "a cut WebP": ("image", lambda _: cut(image("WEBP")), "image_invalid", "damaged"),
    "a GIF without frames": ("image", lambda _: gif_without_frames(), "image_invalid", "damaged"),
    "a GIF without frames as a video": ("video", lambda _: gif_without_frames(), "video_invalid", "cannot be decoded"),
    "a million frames a second": (
        "video",
        video(lambda path: write_video(path, "mp4", "libx264", moving(20), rate=1_000_000)),
        "video_too_large",
        "frames a second",
    ),
    "a picture of 16,000 x 16,000": (
        "video",
        video(lambda path: avi_claiming(path, 16_000)),
        "video_too_large",
        "16000 x 16000",
    ),
    "a picture of 16,384 x 16,384": (
        "video",
        video(lambda path: avi_claiming(path, 16_384)),
        "video_invalid",
        "larger than any decoder takes",
    ),
    "ten hours": (
        "video",
        video(lambda path: write_video(path, "mp4", "mpeg4", moving(3), times=[0, 600, 36_000 * 600])),
        "video_too_large",
        "14400 s",
    ),
    "ten hours of WebP": ("video", lambda _: endless_animation("WEBP", 1000, 36_000), "video_too_large", "14400 s"),
    "ten hours of PNG": ("video", lambda _: endless_animation("PNG", 1000, 36_000), "video_too_large", "14400 s"),
    "an animation of 16k x 16k": (
        "video",
        lambda _: canvas(animation("WEBP", moving(2, 16, 16), TWO), 16_384),
        "video_too_large",
        "16384 x 16384",
    ),
    "a cut video": (
        "video",
        lambda folder: cut(write_video(folder / "video", "mp4", "libx264", moving(20)).read_bytes()),
        "video_invalid",
        "truncated",
    ),
    "a cut animation": (
        "video",
        lambda _: cut(animation("PNG", moving(4), TWO * 2)),
        "video_invalid",
        "truncated",
    ),
    "sound alone": ("video", video(write_sound), "video_invalid", "sound but no pictures"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_file_fails_its_job_with_its_code(client: FlaskClient, desk: Desk, tmp_path: Path, name: str) -> None:
    kind, make, code, words = REFUSED[name]
    data = make(tmp_path)
    assert len(data) < 2**20
    job = run(client, desk, part(kind, data))
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert (job["error"]["code"], job["error"]["param"]) == (code, P)
    assert words in job["error"]["message"]
    assert str(tmp_path) not in job["error"]["message"]
    # And the worker is none the worse for it.
    assert run(client, desk, part("image", image("PNG")))["status"] == "completed"


def joined_jpegs(_: Path) -> bytes:
    return image("JPEG", 32, 32) * 5_000


def long_gif(folder: Path) -> bytes:
    return repeat_gif(folder / "gif", picture(16, 16), 10_000).read_bytes()


@pytest.mark.parametrize("make", [joined_jpegs, long_gif])
def test_of_many_pictures_in_one_image_the_first_is_seen(
    client: FlaskClient, desk: Desk, tmp_path: Path, make: Make
) -> None:
    job = run(client, desk, part("image", make(tmp_path)))
    assert job["status"] == "completed", job["error"]
    assert job["usage"]["images"] == 1
    assert job["timings"]["media"] < 1


def motion_jpeg(folder: Path) -> bytes:
    return write_video(folder / "video", "avi", "mjpeg", moving(2, 16, 16) * 2_500).read_bytes()


@pytest.mark.parametrize(
    ("make", "total"),
    [
        (long_gif, 10_000),
        (motion_jpeg, 5_000),
        (lambda _: endless_animation("PNG", 10_000), 10_000),
        (lambda _: endless_animation("WEBP", 10_000), 10_000),
    ],
    ids=["GIF", "MJPEG", "PNG", "WebP"],
)
def test_a_video_of_thousands_of_pictures_is_sampled(
    client: FlaskClient, desk: Desk, tmp_path: Path, make: Make, total: int
) -> None:
    job = run(client, desk, part("video", make(tmp_path), num_frames=8))
    assert job["status"] == "completed", job["error"]
    assert job["usage"]["frames"] == 8
    assert job["manifest"]["media"][0]["frame_indices"] == [k * total // 8 for k in range(8)]


@pytest.mark.parametrize("media_type", FOREIGN)
def test_other_formats_under_a_pictures_name_are_refused_at_the_door(client: FlaskClient, media_type: str) -> None:
    data = FOREIGN[media_type]()
    named = client.post("/v1/files", data={"file": (io.BytesIO(data), "cat.png", "image/png")})
    content = [part("image", data)]
    inline = client.post("/v1/jobs", json={"model": "scripted", "messages": [{"role": "user", "content": content}]})
    for answer in (named, inline):
        assert answer.json is not None
        assert (answer.status_code, answer.json["error"]["code"]) == (415, "unsupported_media_type")
        assert media_type in answer.json["detail"]


def test_a_job_of_several_bombs_ends_at_the_first(client: FlaskClient, desk: Desk) -> None:
    good, bomb = part("image", image("PNG")), part("image", png_bomb(20_000))
    job = run(client, desk, good, bomb, bomb)
    assert (job["error"]["code"], job["error"]["param"]) == ("image_too_large", "messages.0.content.1")
