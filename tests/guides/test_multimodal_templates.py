"""Every example of the guide "Multimodal templates", as a job on the bundled model. docs/coverage.md lists them.

Those with a video are in test_video_inputs.py.
"""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import requests
from pytest_httpserver import HTTPServer

from checkpoints.scenes import Scene
from tests.guides.ask import MODEL, Service, assistant, system, text, user
from tests.vlmq.test_chat_templates import GUIDE

# The guide's template with the bundled model's tokens, and without line ends around parts, which it has not learned.
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


@pytest.fixture(params=["url", "path", "base64", "data url", "openai chat", "openai response", "file_id"])
def picture(request: pytest.FixtureRequest, web: HTTPServer, media_root: Path, service: Service) -> dict[str, Any]:
    """The guide's picture in each form that a part can take."""
    encoded = base64.b64encode((media_root / "cats.png").read_bytes()).decode()
    forms: dict[str, dict[str, Any]] = {
        "url": {"type": "image", "url": web.url_for("/cats.png")},
        "path": {"type": "image", "path": "cats.png"},
        "base64": {"type": "image", "base64": encoded},
        "data url": {"type": "image", "url": f"data:image/png;base64,{encoded}"},
        "openai chat": {"type": "image_url", "image_url": {"url": web.url_for("/cats.png")}},
        "openai response": {"type": "input_image", "image_url": web.url_for("/cats.png")},
    }
    if request.param == "file_id":
        return {"type": "image", "file_id": service.client.upload(media_root / "cats.png")}
    return forms[request.param]


def test_a_system_message_and_a_picture_in_every_form(service: Service, picture: dict[str, Any], cats: Scene) -> None:
    question = {"type": "input_text" if picture["type"] == "input_image" else "text", "text": "What is this?"}
    messages = [system("You describe shapes."), user(picture, question)]
    assert service.answer(messages, return_full_text=False) == f"a {cats.things[0].name}"


def test_a_picture_in_the_request_itself(service: Service, media_root: Path, cats: Scene) -> None:
    messages = [user({"type": "image", "upload": "cats"}, text("What is this?"))]
    job = {"model": MODEL, "messages": messages, "generation": {"do_sample": False}}
    files = {"cats": (media_root / "cats.png").read_bytes()}
    created = requests.post(f"{service.url}/v1/jobs", data={"job": json.dumps(job)}, files=files, timeout=60)
    assert created.status_code == 202, created.text
    done = service.client.wait(created.json()["id"], timeout_s=60)
    assert done.output_text == f"a {cats.things[0].name}"


def test_the_pirate_is_asked_as_in_the_guide(service: Service, web: HTTPServer) -> None:
    messages = [system(PIRATE), user({"type": "image", "url": web.url_for("/cats.png")}, text("What are these?"))]
    job = service.run(messages, return_full_text=False)
    assert job.output_text
    assert PIRATE in service.get(f"/v1/jobs/{job.id}/prompt").json()["text"]


CATS, BEE = ({"type": "image", "path": name} for name in ("cats.png", "bee.jpg"))
BUNNY = {"type": "video", "path": "bunny.mp4", "timestamps": [0, 1.5, 3.1, 4.5]}


@pytest.mark.parametrize(
    ("turns", "images", "frames"),
    [
        ([user(text("Hello"))], 0, 0),
        ([user(CATS, text("What are these?"))], 1, 0),
        ([user(CATS, text("What is this?")), assistant("a circle"), user(BEE, text("And this?"))], 2, 0),
        ([user(BUNNY, text("What do you see in this video?"))], 0, 4),
        ([user(CATS, BUNNY, BUNNY, text("What is in both?"))], 1, 8),
    ],
    ids=["text", "image", "images", "video", "image and videos"],
)
def test_a_chat_is_rendered_and_counted_without_running(
    service: Service, turns: list[dict[str, Any]], images: int, frames: int
) -> None:
    messages = [system(PIRATE), *turns]
    answer = service.post("/v1/prompts/render", {"model": MODEL, "messages": messages})
    assert answer.status_code == 200, answer.text
    rendered = answer.json()
    assert PIRATE in rendered["text"]
    assert (rendered["images"], rendered["frames"]) == (images, frames)
    job = service.run(messages).raw
    usage = job["usage"]
    assert {name: usage[name] for name in rendered["tokens"]} == rendered["tokens"]
    assert (usage["images"], usage["frames"]) == (images, frames)
    assert (usage["image_tokens"] > 0, usage["video_tokens"] > 0) == (images > 0, frames > 0)
    assert usage["image_tokens"] + usage["video_tokens"] < usage["prompt_tokens"]
    assert rendered["media"] == job["manifest"]["media"]
    assert rendered["text"] == service.get(f"/v1/jobs/{job['id']}/prompt").json()["text"]


def test_the_guides_own_template_is_used(service: Service) -> None:
    """Text alone: its image token is Llama's; tests/engine/test_guide_template.py has a checkpoint with that."""
    parts = [system("You describe shapes."), user(text("Hello"))]
    strings = [{"role": "system", "content": "You describe shapes."}, {"role": "user", "content": "Hello"}]
    prompts = []
    for messages in (parts, strings):
        job = service.run(messages, chat_template=GUIDE)
        prompts.append(service.get(f"/v1/jobs/{job.id}/prompt").json()["text"])
    assert prompts[0] == prompts[1]
    assert "<|start_header_id|>system<|end_header_id|>\n\n\nYou describe shapes.\n<|eot_id|>" in prompts[0]
    assert "<|start_header_id|>user<|end_header_id|>\n\n\nHello\n<|eot_id|>" in prompts[0]
    assert prompts[0].rstrip().endswith("<|start_header_id|>assistant<|end_header_id|>")


def test_the_guides_template_with_another_models_image_is_refused_by_name(service: Service, web: HTTPServer) -> None:
    picture = {"type": "image", "url": web.url_for("/cats.png")}
    created = service.client.submit([user(picture, text("What is this?"))], model=MODEL, chat_template=GUIDE)
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


def test_a_stored_template_is_used_in_the_version_that_is_named(service: Service, cats: Scene) -> None:
    for source in (OF_THIS_MODEL, GUIDE):
        stored = {"name": "parts", "kind": "chat", "chat_template": source}
        assert service.post("/v1/templates", stored).status_code == 201
    messages = [user(CATS, text("What is this?"))]
    first = {"name": "parts", "version": 1}
    assert service.answer(messages, chat_template=first) == f"a {cats.things[0].name}"
    newest = service.run([user(text("Hello"))], chat_template={"name": "parts"})
    assert "<|start_header_id|>user" in service.get(f"/v1/jobs/{newest.id}/prompt").json()["text"]


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
