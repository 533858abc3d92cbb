"""A validated request -> what is stored: messages in transformers' form, and the media that they name."""

from dataclasses import dataclass, field
from typing import Any

from api.errors import InvalidRequestError
from api.inline_media import InlineImage, is_data_url, read_image
from api.schemas.content import (
    ImagePart,
    ImageUrlPart,
    InputImagePart,
    InputTextPart,
    Message,
    Part,
    TextPart,
    VideoPart,
    VideoUrlPart,
)
from api.schemas.job_request import JobRequest
from models.job import JobKind
from vlmq.config import ServedModel, Settings
from vlmq.errors import ErrorCode, VlmqError
from vlmq.outbound import check_url


@dataclass
class FileUse:
    """A stored part that refers to a file by id."""

    part: dict[str, Any]
    param: str

    @property
    def kind(self) -> str:
        return str(self.part["type"])


@dataclass
class InlineUse:
    """A stored part that gets its `file_id` once its bytes are kept."""

    part: dict[str, Any]
    image: InlineImage
    param: str


@dataclass
class Draft:
    """A job before it is stored."""

    body: JobRequest
    messages: list[dict[str, Any]] = field(default_factory=list)
    files: list[FileUse] = field(default_factory=list)
    inline: list[InlineUse] = field(default_factory=list)
    kind: JobKind = JobKind.GENERATE

    @property
    def request(self) -> dict[str, Any]:
        stored: dict[str, Any] = {"messages": self.messages, "generation": self.body.generation.stored()}
        if not self.body.allow_degraded:
            stored["allow_degraded"] = False
        return stored | self.body.prompt_fields()


def draft(body: JobRequest, settings: Settings) -> Draft:
    """Check what no single field can tell, and write the messages in one form.

    Raises:
        InvalidRequestError: everything that was found.
    """
    served = settings.models.get(body.model)
    if served is None:
        names = ", ".join(settings.models)
        message = f"This model is not served; served here: {names}."
        raise InvalidRequestError([VlmqError(ErrorCode.MODEL_NOT_FOUND, message, param="model")])
    intake = _Intake(settings, served, Draft(body))
    intake.take_messages(body.messages)
    intake.check_totals(body)
    intake.check_webhook(body)
    if intake.errors:
        raise InvalidRequestError(intake.errors)
    return intake.draft


class _Intake:
    def __init__(self, settings: Settings, served: ServedModel, result: Draft) -> None:
        self._settings, self._limits, self._served = settings, settings.limits, served
        self.draft = result
        self.errors: list[VlmqError] = []
        self._counts = {"text": 0, "image": 0, "video": 0}
        self._chars = 0

    def take_messages(self, messages: list[Message]) -> None:
        for index, message in enumerate(messages):
            param = f"messages.{index}.content"
            if isinstance(message.content, str):
                content = [self._text(message.content)]
            else:
                content = [self._part(part, f"{param}.{at}") for at, part in enumerate(message.content)]
            self.draft.messages.append({"role": message.role, "content": content})

    def check_totals(self, body: JobRequest) -> None:
        """Limits that count over the whole request."""
        limits = self._limits
        for what, count, limit in (
            ("messages", len(body.messages), limits.max_messages),
            ("images", self._counts["image"], limits.max_images),
            ("videos", self._counts["video"], limits.max_videos),
            ("characters of text", self._chars, limits.max_text_chars),
        ):
            if count > limit:
                self._refuse(f"The request has {count} {what}; {limit} are allowed.", "messages")
        for kind in ("image", "video"):
            if self._counts[kind] and kind not in self._served.modalities:
                message = f"{body.model} takes no {kind}s; it takes {', '.join(sorted(self._served.modalities))}."
                self._refuse(message, "messages", ErrorCode.UNSUPPORTED_MODALITY)
        generation = body.generation.stored()
        for name in ("max_new_tokens", "min_new_tokens"):
            if generation.get(name, 0) > limits.max_new_tokens:
                param = f"generation.{body.generation.name_sent(name)}"
                self._refuse(f"{param} may be {limits.max_new_tokens} at most.", param)
                break

    def check_webhook(self, body: JobRequest) -> None:
        if body.webhook is None:
            return
        if self._settings.webhooks.secret is None:
            message = "This service sends no webhooks: it has no signing secret (VLMQ_WEBHOOKS__SECRET)."
            self._refuse(message, "webhook")
        self._check_url(body.webhook.url, "webhook.url", https_only=True)

    def _part(self, part: Part, param: str) -> dict[str, Any]:  # noqa: PLR0911 - one a kind
        match part:
            case TextPart() | InputTextPart():
                return self._text(part.text)
            case ImagePart(base64=str(data)):
                return self._inline_image(data, f"{param}.base64")
            case ImagePart():
                name, url = ("image", part.image) if part.url is None else ("url", part.url)
                return self._image(part.file_id, url, param, name)
            case ImageUrlPart():
                return self._image(None, part.image_url.url, param, "image_url.url")
            case InputImagePart():
                return self._image(part.file_id, part.image_url, param, "image_url")
            case VideoPart():
                name, url = ("video", part.video) if part.url is None else ("url", part.url)
                return self._video(part, part.file_id, url, param, name)
            case VideoUrlPart():
                return self._video(part, None, part.video_url.url, param, "video_url.url")

    def _text(self, text: str) -> dict[str, Any]:
        self._chars += len(text)
        return {"type": "text", "text": text}

    def _image(self, file_id: str | None, url: str | None, param: str, url_name: str) -> dict[str, Any]:
        if url is not None and is_data_url(url):
            return self._inline_image(url, f"{param}.{url_name}")
        return self._reference("image", file_id, url, param, url_name)

    def _inline_image(self, data: str, param: str) -> dict[str, Any]:
        self._counts["image"] += 1
        part: dict[str, Any] = {"type": "image"}
        if self._counts["image"] > self._limits.max_images:
            return part
        try:
            image = read_image(data, limit_bytes=self._limits.max_image_bytes, param=param)
        except VlmqError as error:
            self.errors.append(error)
        else:
            self.draft.inline.append(InlineUse(part, image, param))
        return part

    def _video(
        self, part: VideoPart | VideoUrlPart, file_id: str | None, url: str | None, param: str, url_name: str
    ) -> dict[str, Any]:
        if url is not None and is_data_url(url):
            message = (
                "Videos inside a request are not supported yet; upload the file with POST /v1/files and send its "
                "`file_id`, or send an http(s) URL."
            )
            self._refuse(message, f"{param}.{url_name}", ErrorCode.UNSUPPORTED_PARAMETER)
            return {"type": "video"}
        stored = self._reference("video", file_id, url, param, url_name)
        if part.num_frames is not None and part.num_frames > self._served.max_frames:
            message = f"num_frames may be {self._served.max_frames} at most with this model."
            self._refuse(message, f"{param}.num_frames")
        return stored | part.model_dump(include={"num_frames", "fps"}, exclude_none=True)

    def _reference(self, kind: str, file_id: str | None, url: str | None, param: str, url_name: str) -> dict[str, Any]:
        self._counts[kind] += 1
        if url is not None:
            self._check_url(url, f"{param}.{url_name}")
            return {"type": kind, "url": url}
        part = {"type": kind, "file_id": file_id}
        self.draft.files.append(FileUse(part, f"{param}.file_id"))
        return part

    def _check_url(self, url: str, param: str, *, https_only: bool = False) -> None:
        try:
            check_url(url, allow_private=self._settings.dev_allow_private_urls, param=param, https_only=https_only)
        except VlmqError as error:
            self.errors.append(error)

    def _refuse(self, message: str, param: str, code: ErrorCode = ErrorCode.INVALID_REQUEST) -> None:
        self.errors.append(VlmqError(code, message, param=param))
