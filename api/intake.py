"""A validated request -> what is stored: messages in transformers' form, and the media that they name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api.errors import InvalidRequestError
from api.job_form import FormFile
from api.media_sources import FileUse, InlineUse, Sources
from api.schemas.content import (
    SAMPLING_FIELDS,
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
from api.schemas.strict import Strict
from models.job import JobKind
from vlmq.config import Settings
from vlmq.errors import ErrorCode, VlmqError
from vlmq.outbound import check_url
from vlmq.served_model import ServedModel

# The fields that name a source, and what each means: the same field under several names is the same.
_SOURCES = {
    "url": "url",
    "image": "url",
    "image_url": "url",
    "video": "url",
    "file_id": "file_id",
    "base64": "base64",
    "path": "path",
    "upload": "upload",
}


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


def draft(body: JobRequest, settings: Settings, uploads: Mapping[str, FormFile] | None = None) -> Draft:
    """Check what no single field can tell, and write the messages in one form; `uploads` came with the request.

    Raises:
        InvalidRequestError: everything that was found.
    """
    served = settings.models.get(body.model)
    if served is None:
        names = ", ".join(settings.models)
        message = f"This model is not served; served here: {names}."
        raise InvalidRequestError([VlmqError(ErrorCode.MODEL_NOT_FOUND, message, param="model")])
    intake = _Intake(settings, served, body, uploads or {})
    intake.take_messages(body.messages)
    intake.sources.refuse_unused_uploads()
    intake.check_totals(body)
    intake.check_webhook(body)
    if intake.errors:
        raise InvalidRequestError(intake.errors)
    return intake.draft


class _Intake:
    def __init__(
        self, settings: Settings, served: ServedModel, body: JobRequest, uploads: Mapping[str, FormFile]
    ) -> None:
        self._settings, self._limits, self._served = settings, settings.limits, served
        self.sources = Sources(settings, uploads)
        self.errors = self.sources.errors
        self.draft = Draft(body, files=self.sources.files, inline=self.sources.inline)
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
        for name, values in (("template_kwargs", body.template_kwargs), ("variables", body.variables)):
            chars = len(json.dumps(values, ensure_ascii=False)) if values else 0
            if chars > limits.max_text_chars:
                message = f"{name} have {chars} characters as JSON; {limits.max_text_chars} are allowed."
                self._refuse(message, name)
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

    def _part(self, part: Part, param: str) -> dict[str, Any]:
        match part:
            case TextPart() | InputTextPart():
                return self._text(part.text)
            case ImagePart() | ImageUrlPart() | InputImagePart():
                return self._image(part, param)
            case VideoPart() | VideoUrlPart():
                return self._video(part, param)

    def _text(self, text: str) -> dict[str, Any]:
        self._chars += len(text)
        return {"type": "text", "text": text}

    def _image(self, part: ImagePart | ImageUrlPart | InputImagePart, param: str) -> dict[str, Any]:
        self._counts["image"] += 1
        stored: dict[str, Any] = {"type": "image"}
        # Those beyond the limit are refused anyway, unread.
        if self._counts["image"] <= self._limits.max_images:
            self.sources.take(stored, "image", *_given(part, param))
        return stored

    def _video(self, part: VideoPart | VideoUrlPart, param: str) -> dict[str, Any]:
        self._counts["video"] += 1
        stored: dict[str, Any] = {"type": "video"}
        too_many = self._has_too_many_frames(part, param) or self._counts["video"] > self._limits.max_videos
        frames = part.listed_frames if isinstance(part, VideoPart) else None
        if frames is not None:
            stored["frames"] = [{} for _ in frames]
        if frames is not None and isinstance(part, VideoPart) and not too_many:
            place = f"{param}.{'video' if part.frames is None else 'frames'}"
            for at, (frame, target) in enumerate(zip(frames, stored["frames"], strict=True)):
                if isinstance(frame, str):
                    self.sources.take(target, "image", "url", frame, f"{place}.{at}")
                else:
                    self.sources.take(target, "image", *_given(frame, f"{place}.{at}"))
        elif not too_many:
            self.sources.take(stored, "video", *_given(part, param))
        backend = part.backend or part.video_load_backend
        sampling = part.model_dump(include=set(SAMPLING_FIELDS), exclude_none=True)
        # In place: the file's id is written into this very part when its bytes are kept.
        stored.update(sampling if backend is None else sampling | {"backend": backend})
        return stored

    def _has_too_many_frames(self, part: VideoPart | VideoUrlPart, param: str) -> bool:
        limit = min(self._served.max_frames or self._limits.max_video_frames, self._limits.max_video_frames)
        counts = {
            "num_frames": part.num_frames or 0,
            "frame_indices": len(part.frame_indices or ()),
            "timestamps": len(part.timestamps or ()),
        }
        if isinstance(part, VideoPart) and part.listed_frames is not None:
            counts = {"video" if part.frames is None else "frames": len(part.listed_frames)}
        for name, count in counts.items():
            if count > limit:
                self._refuse(
                    f"A video may have {limit} frames at most with this model; these are {count}.", f"{param}.{name}"
                )
                return True
        return False

    def _check_url(self, url: str, param: str, *, https_only: bool = False) -> None:
        try:
            check_url(url, allow_private=self._settings.dev_allow_private_urls, param=param, https_only=https_only)
        except VlmqError as error:
            self.errors.append(error)

    def _refuse(self, message: str, param: str, code: ErrorCode = ErrorCode.INVALID_REQUEST) -> None:
        self.errors.append(VlmqError(code, message, param=param))


def _given(part: Strict, param: str) -> tuple[str, str, str]:
    """How a part names its source, what it says, and the field that says so."""
    match part:
        case ImageUrlPart():
            return "url", part.image_url.url, f"{param}.image_url.url"
        case VideoUrlPart():
            return "url", part.video_url.url, f"{param}.video_url.url"
    given = part.model_dump(include=set(_SOURCES), exclude_none=True)
    name = next(name for name in _SOURCES if name in given)
    return _SOURCES[name], given[name], f"{param}.{name}"
