"""The messages of a job: transformers' form and OpenAI's, which mean the same."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.strict import Strict
from vlmq.sniff import IMAGE_WORDS, VIDEO_WORDS
from vlmq.video_backends import VideoBackend

MAX_FPS = 240.0
# A frame in eleven days, and three hundred years: whatever is beyond is no video, and too large to count with.
MIN_FPS = 1e-6
MAX_SECOND = 1e10
MAX_INDEX = 2**31 - 1

MAX_LISTED = 4096


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


_PATH = "a file of the server below VLMQ_MEDIA_ROOT, where that is set"
_UPLOAD = "the name of a file in the same multipart request"


class ImagePart(Strict):
    """An image in transformers' form."""

    type: Literal["image"]
    url: str | None = Field(None, description="http(s), or a data: URL with base64")
    image: str | None = Field(None, description="the same as `url`, as transformers' pipeline names it")
    file_id: str | None = Field(None, description="an uploaded file")
    base64: str | None = Field(None, description=IMAGE_WORDS)
    path: str | None = Field(None, description=_PATH)
    upload: str | None = Field(None, description=_UPLOAD)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _exactly_one(self, "url", "image", "file_id", "base64", "path", "upload")
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


# What is stored of how a video is sampled, as it came.
SAMPLING_FIELDS = ("num_frames", "fps", "frame_indices", "timestamps", "start", "end", "max_pixels")
_WAYS = ("num_frames", "fps", "frame_indices", "timestamps")
_Index = Annotated[int, Field(ge=0, le=MAX_INDEX)]
_Second = Annotated[float, Field(ge=0, le=MAX_SECOND)]


class Sampling(Strict):
    """Which frames of a video the model sees."""

    num_frames: int | None = Field(None, ge=1, description="this many, spread evenly")
    fps: float | None = Field(
        None, ge=MIN_FPS, le=MAX_FPS, description="this many a second; of `frames`, how many there were"
    )
    frame_indices: Annotated[list[_Index], Field(min_length=1, max_length=MAX_LISTED)] | None = Field(
        None, description="these frames, counted from 0 in the order of display; ascending"
    )
    timestamps: Annotated[list[_Second], Field(min_length=1, max_length=MAX_LISTED)] | None = Field(
        None, description="the frames shown at these seconds from the first; of `frames`, when each was; ascending"
    )
    start: float | None = Field(
        None, ge=0, le=MAX_SECOND, description="begin of a clip, in seconds from the first frame"
    )
    end: float | None = Field(None, gt=0, le=MAX_SECOND, description="end of a clip, in seconds from the first frame")
    max_pixels: int | None = Field(None, ge=4, description="width times height of a frame; larger ones are scaled down")
    backend: VideoBackend | None = Field(None, description="what decodes; pyav unless named")
    video_load_backend: VideoBackend | None = Field(None, description="the same as `backend`, as transformers names it")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [name for name in _WAYS if getattr(self, name) is not None]
        if len(given) > 1:
            raise _sampling(f"Takes {given[0]} or {given[1]}, not both", given[1])
        for name in ("frame_indices", "timestamps"):
            listed = getattr(self, name)
            if listed is not None and any(later <= earlier for earlier, later in pairwise(listed)):
                raise _sampling("Each must be greater than the one before", name)
        self._check_clip(given)
        if None not in (self.backend, self.video_load_backend) and self.backend != self.video_load_backend:
            raise _sampling("Takes backend or video_load_backend, not both", "video_load_backend")
        return self

    def _check_clip(self, given: list[str]) -> None:
        if self.end is not None and self.end <= (self.start or 0):
            raise _sampling("Must be greater than start", "end")
        for name in ("start", "end"):
            if getattr(self, name) is not None and given and given[0] in ("frame_indices", "timestamps"):
                raise _sampling(f"{given[0]} says which frames already; leave this out", name)


def _sampling(message: str, field: str) -> PydanticCustomError:
    return PydanticCustomError("sampling", message, {"field": field})


class FrameObject(Strict):
    """One frame of a video that comes as images."""

    url: str | None = Field(None, description="http(s), or a data: URL with base64")
    file_id: str | None = Field(None, description="an uploaded file")
    base64: str | None = Field(None, description=IMAGE_WORDS)
    path: str | None = Field(None, description=_PATH)
    upload: str | None = Field(None, description=_UPLOAD)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _exactly_one(self, "url", "file_id", "base64", "path", "upload")
        return self


def _frame_kind(value: Any) -> str | None:
    return "<url>" if isinstance(value, str) else "<frame>" if isinstance(value, dict) else None


def _video_kind(value: Any) -> str | None:
    return "<url>" if isinstance(value, str) else "<frames>" if isinstance(value, list) else None


_Frames = Annotated[
    list[
        Annotated[
            Annotated[str, Tag("<url>")] | Annotated[FrameObject, Tag("<frame>")],
            Discriminator(
                _frame_kind,
                custom_error_type="frame",
                custom_error_message="Takes a URL, or an object with url, path, base64, file_id or upload",
            ),
        ]
    ],
    Field(min_length=1, max_length=MAX_LISTED),
]


class VideoPart(Sampling):
    """A video in transformers' form: a file, or a list of images."""

    type: Literal["video"]
    url: str | None = Field(None, description="http(s), or a data: URL with base64")
    video: (
        Annotated[
            Annotated[str, Tag("<url>")] | Annotated[_Frames, Tag("<frames>")],
            Discriminator(
                _video_kind,
                custom_error_type="video",
                custom_error_message="Takes a URL, or a list of frames",
            ),
        ]
        | None
    ) = Field(None, description="the same as `url` or `frames`, as transformers names it")
    file_id: str | None = Field(None, description="an uploaded file")
    base64: str | None = Field(None, description=VIDEO_WORDS)
    path: str | None = Field(None, description=_PATH)
    upload: str | None = Field(None, description=_UPLOAD)
    frames: _Frames | None = Field(None, description="images of one size in their order, all of which are seen")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _exactly_one(self, "url", "video", "file_id", "base64", "path", "upload", "frames")
        if (frames := self.listed_frames) is None:
            return self
        for name in ("num_frames", "frame_indices", "start", "end", "backend", "video_load_backend"):
            if getattr(self, name) is not None:
                raise _sampling("Means nothing for a list of frames, all of which are seen", name)
        if self.timestamps is not None and len(self.timestamps) != len(frames):
            raise _sampling(f"Takes one time for each of the {len(frames)} frames", "timestamps")
        return self

    @property
    def listed_frames(self) -> list[str | FrameObject] | None:
        return self.video if isinstance(self.video, list) else self.frames


class VideoUrlPart(Sampling):
    """A video in the form that OpenAI-compatible servers take."""

    type: Literal["video_url"]
    video_url: UrlObject


Part = TextPart | InputTextPart | ImagePart | ImageUrlPart | InputImagePart | VideoPart | VideoUrlPart
PART_TYPES = ("text", "image", "video", "image_url", "video_url", "input_text", "input_image")


def content_kind(value: Any) -> str | None:
    """The tag of a message's content, by which pydantic tells which of the two it is to check."""
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
            content_kind,
            custom_error_type="text_or_list",
            custom_error_message="Takes text, or a list of parts",
        ),
    ]
