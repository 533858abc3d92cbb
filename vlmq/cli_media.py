"""What `vlmq submit` was given, made into the parts of a message."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from vlmq.client import Client
from vlmq.errors import ExplainedError
from vlmq.sniff import HEAD_BYTES, IMAGE_TYPES, VIDEO_TYPES, sniff

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"})


@dataclass(frozen=True, slots=True)
class Media:
    """An image or a video by its URL, or by its path on this machine."""

    kind: str
    url: str | None = None
    path: Path | None = None


def read_arguments(what: Sequence[str], *, images: Sequence[str], videos: Sequence[str]) -> tuple[list[Media], str]:
    """The media in their order, and the question: the one argument that is neither a file nor a URL.

    Raises:
        ExplainedError: a file is missing or neither image nor video, or there is not exactly one question.
    """
    media: list[Media] = []
    questions: list[str] = []
    for word in what:
        if _is_url(word):
            media.append(Media(_kind_of_url(word), url=word))
        elif _is_file(word):
            media.append(Media(_kind_of_file(Path(word)), path=Path(word)))
        elif " " not in word and PurePosixPath(word).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            raise ExplainedError(_no_file(word))
        elif not word.strip():
            raise ExplainedError("the question is empty")
        else:
            questions.append(word)
    media += [_named(word, "image") for word in images]
    media += [_named(word, "video") for word in videos]
    if not questions:
        raise ExplainedError('what is the question? For example: vlmq submit cat.jpg "What is this?"')
    if len(questions) > 1:
        quoted = " and ".join(repr(question) for question in questions)
        raise ExplainedError(f"takes one question, got {quoted}; quote it, and check that the files exist")
    return media, questions[0]


def upload_parts(media: Sequence[Media], client: Client, sampling: Mapping[str, float]) -> list[dict[str, Any]]:
    """The media as parts of a message, with files of this machine uploaded first."""
    parts: list[dict[str, Any]] = []
    for item in media:
        part: dict[str, Any] = {"type": item.kind}
        if item.path is not None:
            part["file_id"] = client.upload(item.path)
        else:
            part["url"] = item.url
        parts.append(part | (dict(sampling) if item.kind == "video" else {}))
    return parts


def _named(word: str, kind: str) -> Media:
    if _is_url(word):
        _url_path(word)
        return Media(kind, url=word)
    if not _is_file(word):
        raise ExplainedError(_no_file(word))
    return Media(kind, path=Path(word))


def _is_url(word: str) -> bool:
    return word.startswith(("http://", "https://"))


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except (OSError, ValueError):
        return False  # a long question, or one with a NUL, is no path


def _no_file(word: str) -> str:
    try:
        path = Path(word)
        if path.is_dir():
            return f"{word} is a folder; name the files in it"
        if path.exists():
            return f"{word} is no regular file; write what it gives into one"
    except (OSError, ValueError):
        pass  # what cannot be a path names no file
    return f"there is no file {word}"


def _url_path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        raise ExplainedError(f"{url} is no URL") from None


def _kind_of_url(url: str) -> str:
    suffix = PurePosixPath(_url_path(url)).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    raise ExplainedError(f"is {url} an image or a video? Say --image URL or --video URL")


def _kind_of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = sniff(file.read(HEAD_BYTES))
    except OSError as error:
        raise ExplainedError(f"{path} cannot be read: {error.strerror}") from None
    if found in IMAGE_TYPES:
        return "image"
    if found in VIDEO_TYPES:
        return "video"
    told = f"it is {found.value}" if found else "its content is not known"
    raise ExplainedError(f"{path} is neither an image nor a video that vlmq takes: {told}")
