"""The messages of a job: transformers' form and OpenAI's, which mean the same."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.strict import Strict

MAX_FPS = 240.0

_UPLOAD = "upload the file with POST /v1/files and send its `file_id`, or send a `url`"


def _exactly_one(part: Strict, *names: str) -> None:
    given = [name for name in names if getattr(part, name) is not None]
    if len(given) != 1:
        raise PydanticCustomError(
            "source",
            "Takes exactly one of {names}; {given}",
            {"names": ", ".join(names), "given": f"got {' and '.join(given)}" if given else "got none"},
        )


class TextPart(Strict):
    type: Literal["text"]
    text: str


class InputTextPart(Strict):
    """OpenAI's name for a text part."""

    type: Literal["input_text"]
    text: str


class ImagePart(Strict):
    """An image in transformers' form."""

    not_yet: ClassVar[dict[str, str]] = {"path": _UPLOAD + " or `base64`"}

    type: Literal["image"]
    url: str | None = Field(None, description="http(s), or a data: URL with base64")
    image: str | None = Field(None, description="the same as `url`, as transformers' pipeline names it")
    file_id: str | None = Field(None, description="an uploaded file")
    base64: str | None = Field(None, description="PNG, JPEG, WebP, GIF or BMP")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _exactly_one(self, "url", "image", "file_id", "base64")
        return self


class UrlObject(Strict):
    url: str


class ImageUrlObject(UrlObject):
    detail: Literal["auto"] | None = Field(None, description="the model sees the image as its processor prepares it")


class ImageUrlPart(Strict):
    """An image in the form of OpenAI's chat completions."""

    type: Literal["image_url"]
    image_url: ImageUrlObject


class InputImagePart(Strict):
    """An image in the form of OpenAI's responses."""

    type: Literal["input_image"]
    image_url: str | None = Field(None, description="http(s), or a data: URL with base64")
    file_id: str | None = None
    detail: Literal["auto"] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _exactly_one(self, "image_url", "file_id")
        return self


class Sampling(Strict):
    """Which frames of a video the model sees."""

    num_frames: int | None = Field(None, ge=1, description="this many, spread evenly; excludes `fps`")
    fps: float | None = Field(None, gt=0, le=MAX_FPS, description="this many a second; excludes `num_frames`")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.num_frames is not None and self.fps is not None:
            raise PydanticCustomError("sampling", "Takes num_frames or fps, not both", {"field": "fps"})
        return self


_CLIP = "cut the video before sending it"


class VideoPart(Sampling):
    """A video in transformers' form."""

    not_yet: ClassVar[dict[str, str]] = {
        "path": _UPLOAD,
        "base64": _UPLOAD,
        "frames": _UPLOAD,
        "start": _CLIP,
        "end": _CLIP,
    }

    type: Literal["video"]
    url: str | None = Field(None, description="http(s)")
    video: str | None = Field(None, description="the same as `url`, as transformers' pipeline names it")
    file_id: str | None = Field(None, description="an uploaded file")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _exactly_one(self, "url", "video", "file_id")
        return self


class VideoUrlPart(Sampling):
    """A video in the form that OpenAI-compatible servers take."""

    type: Literal["video_url"]
    video_url: UrlObject


Part = TextPart | InputTextPart | ImagePart | ImageUrlPart | InputImagePart | VideoPart | VideoUrlPart
PART_TYPES = ("text", "image", "video", "image_url", "video_url", "input_text", "input_image")


def _content_kind(value: Any) -> str | None:
    return "<text>" if isinstance(value, str) else "<parts>" if isinstance(value, list) else None


class Message(Strict):
    """One turn of the chat."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[
        Annotated[str, Tag("<text>")]
        | Annotated[
            list[Annotated[Part, Field(discriminator="type")]], Field(min_length=1, max_length=4096), Tag("<parts>")
        ],
        Discriminator(
            _content_kind,
            custom_error_type="text_or_list",
            custom_error_message="Takes text, or a list of parts",
        ),
    ]
