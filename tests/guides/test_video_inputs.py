"""Every example of the guide "Multimodal templates" that has a video, as a job. docs/coverage.md lists them."""

import base64
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from checkpoints.scenes import Clip
from tests.guides.ask import MODEL, Service, text, user

MOVES = "Which direction does the {} move?"


@pytest.fixture(params=["url", "path", "base64", "openai", "file_id"])
def video(request: pytest.FixtureRequest, web: HTTPServer, media_root: Path, service: Service) -> dict[str, Any]:
    """The guide's video in each form that a part can take."""
    forms: dict[str, dict[str, Any]] = {
        "url": {"type": "video", "url": web.url_for("/bunny.mp4")},
        "path": {"type": "video", "path": "bunny.mp4"},
        "base64": {"type": "video", "base64": base64.b64encode((media_root / "bunny.mp4").read_bytes()).decode()},
        "openai": {"type": "video_url", "video_url": {"url": web.url_for("/bunny.mp4")}},
    }
    if request.param == "file_id":
        return {"type": "video", "file_id": service.client.upload(media_root / "bunny.mp4")}
    return forms[request.param]


def direction(service: Service, clip: Clip, part: dict[str, Any]) -> str:
    return service.answer([user(part, text(MOVES.format(clip.things[0].name)))])


def test_a_video_in_every_form(service: Service, video: dict[str, Any], bunny: Clip) -> None:
    assert direction(service, bunny, video) == bunny.direction


@pytest.mark.parametrize("backend", ["pyav", "opencv", "decord"])
@pytest.mark.parametrize("sampling", [{"num_frames": 8}, {"num_frames": 16}, {"fps": 1}], ids=str)
def test_frames_are_sampled_by_number_and_by_rate_with_every_backend(
    service: Service, bunny: Clip, backend: str, sampling: dict[str, Any]
) -> None:
    part = {"type": "video", "path": "bunny.mp4", "video_load_backend": backend, **sampling}
    job = service.run([user(part, text(MOVES.format(bunny.things[0].name)))])
    assert str(job.output_text).strip() == bunny.direction
    seen = job.raw["manifest"]["media"][0]
    assert len(seen["frame_timestamps_s"]) == sampling.get("num_frames", 10)
    assert job.raw["usage"]["frames"] == len(seen["frame_timestamps_s"])


@pytest.mark.parametrize("backend", ["opencv", "decord"])
def test_every_backend_decodes_what_a_url_leads_to(
    service: Service, web: HTTPServer, bunny: Clip, backend: str
) -> None:
    part = {"type": "video", "url": web.url_for("/bunny.mp4"), "num_frames": 8, "video_load_backend": backend}
    assert direction(service, bunny, part) == bunny.direction


def test_torchvision_is_refused_with_what_to_do_instead(service: Service) -> None:
    part = {"type": "video", "path": "bunny.mp4", "video_load_backend": "torchvision"}
    created = service.client.submit([user(part, text("What do you see in this video?"))], model=MODEL)
    error = service.client.wait(created.id, timeout_s=60).raw["error"]
    assert error["code"] == "unsupported_parameter"
    assert error["message"] == "torchvision no longer decodes videos; name another backend, or leave it out for pyav."


def test_smaller_frames_take_fewer_tokens(service: Service, bunny: Clip) -> None:
    part = {"type": "video", "path": "bunny.mp4", "num_frames": 8}
    whole, small = (
        service.run([user(given, text(MOVES.format(bunny.things[0].name)))]).raw
        for given in (part, part | {"max_pixels": 3000})
    )
    (seen,) = small["manifest"]["media"]
    assert 2500 < seen["width"] * seen["height"] <= 3000
    assert small["usage"]["video_tokens"] < whole["usage"]["video_tokens"]


def test_thirty_two_frames_as_in_the_guide(service: Service) -> None:
    part = {"type": "video", "path": "bunny.mp4", "num_frames": 32, "video_load_backend": "decord"}
    job = service.run([user(part, text("What do you see in this video?"))])
    assert job.raw["usage"]["frames"] == 32


@pytest.mark.parametrize(
    "sampling",
    [{"frame_indices": [0, 6, 12, 18, 24, 30, 36, 39]}, {"timestamps": [0, 1.5, 3, 4.5, 6, 7.5, 9, 9.75]}],
    ids=["frame_indices", "timestamps"],
)
def test_frames_are_chosen_by_hand(service: Service, bunny: Clip, sampling: dict[str, Any]) -> None:
    part = {"type": "video", "path": "bunny.mp4", **sampling}
    job = service.run([user(part, text(MOVES.format(bunny.things[0].name)))])
    assert str(job.output_text).strip() == bunny.direction
    assert job.raw["manifest"]["media"][0]["frame_timestamps_s"] == [0, 1.5, 3, 4.5, 6, 7.5, 9, 9.75]


def test_a_list_of_frames_is_a_video(service: Service, bunny: Clip, tmp_path: Path) -> None:
    ids = []
    for number, moment in enumerate((0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)):
        file = tmp_path / f"{number}.png"
        bunny.at(moment).draw(256).save(file)
        ids.append(service.client.upload(file))
    frames = [{"file_id": file_id} for file_id in ids]
    assert direction(service, bunny, {"type": "video", "frames": frames, "fps": 1}) == bunny.direction
    backwards = direction(service, bunny, {"type": "video", "frames": frames[::-1], "fps": 1})
    assert backwards != bunny.direction


def test_two_clips_of_one_video_have_two_answers(service: Service, bunny: Clip, there_and_back: Clip) -> None:
    part = {"type": "video", "path": "both.mp4", "num_frames": 8}
    assert direction(service, bunny, part | {"start": 0, "end": 9.75}) == bunny.direction
    assert direction(service, bunny, part | {"start": 10, "end": 20}) == there_and_back.direction
