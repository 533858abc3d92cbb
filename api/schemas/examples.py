"""Bodies to begin with, as the interactive documentation offers them."""

import json
from typing import Any

from flask_openapi.models import OPENAPI3_REF_PREFIX

from api.schemas import job_request, templates
from api.schemas.example_pictures import FRAMES, PICTURE
from api.schemas.job_request import JobRequest
from api.schemas.templates import TemplateRequest

_QUESTION = {"type": "text", "text": "What is this?"}
_IMAGE = {"type": "image", "base64": PICTURE}


def _asking(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "tiny-vlm", "messages": [{"role": "user", "content": list(parts)}], **fields}


# Names with the words that are shown, and the bodies.
JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "image": ("An image and a question", _asking(_IMAGE, _QUESTION)),
    "turns": (
        "Several turns, an image in an earlier one",
        {
            "model": "tiny-vlm",
            "messages": [
                {"role": "user", "content": [_IMAGE, {"type": "text", "text": "What color is the star?"}]},
                {"role": "assistant", "content": "red"},
                {"role": "user", "content": "And the circle?"},
            ],
        },
    ),
    "clip": (
        "A clip of a video behind a URL, 16 frames of it",
        _asking(
            {"type": "video", "url": "https://example.com/street.mp4", "start": 12, "end": 48.5, "num_frames": 16},
            {"type": "text", "text": "What happens in the video?"},
        ),
    ),
    "frames": (
        "A video as a list of images, two a second",
        _asking(
            {"type": "video", "frames": [{"base64": frame} for frame in FRAMES], "fps": 2},
            {"type": "text", "text": "What happens in the video?"},
        ),
    ),
    "prompt": (
        "A stored prompt with variables",
        {
            "model": "tiny-vlm",
            "template": {"name": "describe"},
            "variables": {"photo": _IMAGE},
        },
    ),
    "chat template": (
        "A chat template of your own",
        _asking(
            _IMAGE,
            _QUESTION,
            chat_template="{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
            "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}"
            "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n",
            return_full_text=True,
        ),
    ),
    "several texts": (
        "Several sampled texts with log probabilities",
        _asking(_IMAGE, _QUESTION, generation={"n": 2, "temperature": 0.7, "seed": 7, "logprobs": True}),
    ),
    "all around": ("With a webhook, deadlines and words of your own", job_request.EXAMPLE),
}
TEMPLATES: dict[str, tuple[str, dict[str, Any]]] = {
    "prompt": ("A prompt with variables", templates.EXAMPLE),
    "chat": (
        "A chat template",
        {
            "name": "plain",
            "kind": "chat",
            "chat_template": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:",
        },
    ),
}


def request_body(model: type[JobRequest | TemplateRequest], *, with_files: bool = False) -> dict[str, Any]:
    """The `requestBody` of an operation that takes `model`."""
    schema = {"$ref": f"{OPENAPI3_REF_PREFIX}/{model.__name__}"}
    known = JOBS if model is JobRequest else TEMPLATES
    examples = {name: {"summary": words, "value": value} for name, (words, value) in known.items()}
    content: dict[str, Any] = {"application/json": {"schema": schema, "examples": examples}}
    if with_files:
        content["multipart/form-data"] = {"schema": _form()}
    return {"required": True, "content": content}


def _form() -> dict[str, Any]:
    """The job is a field of text: of an object, and of text that is encoded as JSON, Swagger UI would send each member
    as a field. It offers no field without a name, so one file has one.
    """
    return {
        "type": "object",
        "required": ["job"],
        "properties": {
            "job": {
                "type": "string",
                "description": f"A `{JobRequest.__name__}`, as JSON.",
                "example": json.dumps(_asking({"type": "image", "upload": "image"}, _QUESTION), indent=2),
            },
            "image": {"type": "string", "format": "binary", "description": 'The file of `"upload": "image"`.'},
        },
        "additionalProperties": {"type": "string", "format": "binary"},
        "description": "The job, and a file for each name that its parts give as `upload`.",
    }
