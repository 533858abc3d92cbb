"""Where the bytes of an image, a video or a frame come from, as a request names it -> as it is stored."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api.inline_media import InlineFile, inline_type, is_data_url, read_inline
from api.job_form import FormFile
from vlmq.config import Settings
from vlmq.errors import ErrorCode, VlmqError
from vlmq.outbound import check_url
from vlmq.rooted import open_beneath, relative_path


@dataclass
class FileUse:
    """A stored part or frame that refers to a file by id."""

    part: dict[str, Any]
    kind: str
    param: str


@dataclass
class InlineUse:
    """A stored part or frame that gets its `file_id` once its bytes are kept."""

    part: dict[str, Any]
    file: InlineFile
    param: str


@dataclass
class Sources:
    """Takes sources one by one; collects the files that they use, and what is wrong with them."""

    settings: Settings
    uploads: Mapping[str, FormFile]
    files: list[FileUse] = field(default_factory=list)
    inline: list[InlineUse] = field(default_factory=list)
    errors: list[VlmqError] = field(default_factory=list)
    used_uploads: set[str] = field(default_factory=set)

    def take(self, part: dict[str, Any], kind: str, how: str, value: str, param: str) -> None:
        """Write into `part` where its bytes come from; `how` is `url`, `path`, `base64`, `file_id` or `upload`."""
        try:
            if how == "base64" or (how == "url" and is_data_url(value)):
                inline = read_inline(value, kind=kind, limit_bytes=self._limit(kind), param=param)
                self.inline.append(InlineUse(part, inline, param))
            elif how == "upload":
                self.inline.append(InlineUse(part, self._uploaded(value, kind, param), param))
            elif how == "file_id":
                part["file_id"] = value
                self.files.append(FileUse(part, kind, param))
            elif how == "path":
                part["path"] = self._path(value, param)
            else:
                check_url(value, allow_private=self.settings.dev_allow_private_urls, param=param)
                part["url"] = value
        except VlmqError as error:
            self.errors.append(error)

    def refuse_unused_uploads(self) -> None:
        for name in self.uploads:
            if name not in self.used_uploads:
                message = f"No part names the uploaded file `{name}`; a part does so with `upload`."
                self.errors.append(VlmqError(ErrorCode.INVALID_REQUEST, message, param=name))

    def _uploaded(self, name: str, kind: str, param: str) -> InlineFile:
        self.used_uploads.add(name)
        upload = self.uploads.get(name)
        if upload is None:
            message = "The request has no file of this name; send it in the same multipart/form-data."
            raise VlmqError(ErrorCode.INVALID_REQUEST, message, param=param)
        media_type = inline_type(upload.head, kind=kind, param=param)
        if upload.size > (limit := self._limit(kind)):
            message = f"The {kind} has more than the {limit} bytes allowed."
            raise VlmqError(ErrorCode.MEDIA_TOO_LARGE, message, param=param)
        return InlineFile(media_type, upload.chunks)

    def _path(self, path: str, param: str) -> str:
        root = self.settings.media_root
        relative = relative_path(root, path, param=param)
        # The API may run on a machine without the folder; the worker looks again in any case.
        if root is not None and root.is_dir():
            os.close(open_beneath(root, relative, param=param))
        return relative

    def _limit(self, kind: str) -> int:
        limits = self.settings.limits
        return limits.max_image_bytes if kind == "image" else limits.max_video_bytes
