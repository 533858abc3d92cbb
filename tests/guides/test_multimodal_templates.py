"""Every example of the guide "Multimodal templates", as a job on the bundled model. docs/coverage.md lists them."""

import base64
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from checkpoints.scenes import Clip, Scene
from tests.guides.ask import MODEL, Service, system, text, user

# The guide's template for Llama 3.2 Vision.
LLAMA = """{% for message in messages %}
{% if loop.index0 == 0 %}{{ bos_token }}{% endif %}
{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
{% if message['content'] is string %}
{{ message['content'] }}
{% else %}
{% for content in message['content'] %}
{% if content['type'] == 'image' %}
{{ '<|image|>' }}
{% elif content['type'] == 'text' %}
{{ content['text'] }}
{% endif %}
{% endfor %}
{% endif %}
{{ '<|eot_id|>' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}
"""

# The same with the bundled model's tokens, and without the line ends around parts that it has not been trained with.
OF_THIS_MODEL = """{% for message in messages %}
{{- '<|im_start|>' + message['role'] + '\n' }}
{%- if message['content'] is string %}
{{- message['content'] }}
{%- else %}
{%- for content in message['content'] %}
{%- if content['type'] == 'image' %}
{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif content['type'] == 'text' %}
{{- content['text'] }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""

PIRATE = "You are a friendly chatbot who always responds in the style of a pirate"
MOVES = "Which direction does the {} move?"


@pytest.fixture(params=["url", "path", "base64", "data url", "openai", "file_id"])
def picture(request: pytest.FixtureRequest, web: HTTPServer, media_root: Path, service: Service) -> dict[str, Any]:
    """The guide's picture in each form that a part can take."""
    encoded = base64.b64encode((media_root / "cats.png").read_bytes()).decode()
    forms: dict[str, dict[str, Any]] = {
        "url": {"type": "image", "url": web.url_for("/cats.png")},
        "path": {"type": "image", "path": "cats.png"},
        "base64": {"type": "image", "base64": encoded},
        "data url": {"type": "image", "url": f"data:image/png;base64,{encoded}"},
        "openai": {"type": "image_url", "image_url": {"url": web.url_for("/cats.png")}},
    }
    if request.param == "file_id":
        return {"type": "image", "file_id": service.client.upload(media_root / "cats.png")}
    return forms[request.param]


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


def test_a_system_message_and_a_picture_in_every_form(service: Service, picture: dict[str, Any], cats: Scene) -> None:
    messages = [system("You describe shapes."), user(picture, text("What is this?"))]
    assert service.answer(messages, return_full_text=False) == f"a {cats.things[0].name}"


def test_the_pirate_is_asked_as_in_the_guide(service: Service, web: HTTPServer) -> None:
    messages = [system(PIRATE), user({"type": "image", "url": web.url_for("/cats.png")}, text("What are these?"))]
    job = service.run(messages, return_full_text=False)
    assert job.output_text
    assert PIRATE in service.get(f"/v1/jobs/{job.id}/prompt").json()["text"]


def test_a_chat_is_rendered_and_counted_without_running(service: Service, web: HTTPServer) -> None:
    messages = [system(PIRATE), user({"type": "image", "url": web.url_for("/cats.png")}, text("What are these?"))]
    answer = service.post("/v1/prompts/render", {"model": MODEL, "messages": messages})
    assert answer.status_code == 200, answer.text
    rendered = answer.json()
    assert PIRATE in rendered["text"]
    assert rendered["images"] == 1
    usage = service.run(messages).raw["usage"]
    assert {name: usage[name] for name in rendered["tokens"]} == rendered["tokens"]
    assert 0 < usage["image_tokens"] < usage["prompt_tokens"]


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


def test_the_guides_own_template_is_used(service: Service) -> None:
    """Text alone: its image token is Llama's; tests/engine/test_guide_template.py has a checkpoint with that."""
    messages = [system("You describe shapes."), user(text("Hello"))]
    job = service.run(messages, chat_template=LLAMA)
    prompt = service.get(f"/v1/jobs/{job.id}/prompt").json()["text"]
    assert "<|start_header_id|>system<|end_header_id|>" in prompt
    assert prompt.rstrip().endswith("<|start_header_id|>assistant<|end_header_id|>")


def test_the_guides_template_with_another_models_image_is_refused_by_name(service: Service, web: HTTPServer) -> None:
    picture = {"type": "image", "url": web.url_for("/cats.png")}
    created = service.client.submit([user(picture, text("What is this?"))], model=MODEL, chat_template=LLAMA)
    job = service.client.wait(created.id, timeout_s=60)
    assert (job.status, job.raw["error"]["code"]) == ("failed", "template_error")
    assert "<|image_pad|>" in job.raw["error"]["message"]


def test_a_template_that_handles_parts_as_the_guides_does_is_answered(
    service: Service, web: HTTPServer, cats: Scene
) -> None:
    picture = {"type": "image", "url": web.url_for("/cats.png")}
    assert (
        service.answer([user(picture, text("What is this?"))], chat_template=OF_THIS_MODEL)
        == f"a {cats.things[0].name}"
    )


def test_a_prompt_template_takes_media_and_words(service: Service, web: HTTPServer, cats: Scene) -> None:
    stored = {
        "name": "color-of",
        "kind": "prompt",
        "messages": [
            user({"type": "image", "variable": "photo"}, text("What color is the {{ shape }}?")),
        ],
        "variables": {"photo": {"type": "image"}, "shape": {"type": "string"}},
    }
    assert service.post("/v1/templates", stored).status_code == 201
    body = {
        "model": MODEL,
        "template": {"name": "color-of"},
        "variables": {"photo": {"type": "image", "url": web.url_for("/cats.png")}, "shape": cats.things[0].shape},
    }
    created = service.post("/v1/jobs", body)
    assert created.status_code == 202, created.text
    job = service.client.wait(created.json()["id"], timeout_s=60)
    assert str(job.output_text).strip() == cats.things[0].color
