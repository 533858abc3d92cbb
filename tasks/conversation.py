"""A job's stored messages -> what the engine takes: decoded media, and messages with places for them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from engine.types import PromptRequest, VideoClip
from media.load import DecodedImage, DecodedVideo, LocalFile, MediaLoader, RemoteUrl, RootedPath, Source
from models.db import Database
from models.file import File
from models.job import Job
from tasks.video_sampling import SamplingRules, listed_times
from vlmq.cutoff import Cutoff
from vlmq.errors import ErrorCode, VlmqError
from vlmq.files import FileStore


@dataclass
class Conversation:
    """Messages in transformers' form, and the media in the order in which they appear there."""

    messages: list[dict[str, Any]]
    images: list[DecodedImage] = field(default_factory=list)
    videos: list[DecodedVideo] = field(default_factory=list)
    # One entry a medium, for the result: where it stood, what it was, and which frames the model saw.
    manifest: list[dict[str, Any]] = field(default_factory=list)

    def as_prompt(self) -> PromptRequest:
        return PromptRequest(
            messages=self.messages,
            images=[image.pixels for image in self.images],
            videos=[
                VideoClip(
                    frames=video.frames,
                    timestamps=video.timestamps,
                    frame_indices=video.frame_indices,
                    fps=video.fps,
                    total_frames=video.total_frames,
                    duration=video.duration,
                )
                for video in self.videos
            ],
        )

    def pixel_count(self) -> int:
        """Width times height of all images and frames."""
        pictures = [*(image.pixels for image in self.images), *(video.frames for video in self.videos)]
        return sum(pixels.size // 3 for pixels in pictures)

    def frame_count(self) -> int:
        return sum(len(video.timestamps) for video in self.videos)


class ConversationLoader:
    """Fetches and decodes the media of jobs; `max_pixels` is for all images and frames of one job together."""

    def __init__(
        self, database: Database, files: FileStore, media: MediaLoader, rules: SamplingRules, max_pixels: int
    ) -> None:
        self._database, self._files, self._media, self._rules = database, files, media, rules
        self._max_pixels = max_pixels

    def load(self, job: Job, before_each: Callable[[int, int], None], cutoff: Cutoff) -> Conversation:
        """Load every medium of the job; `before_each(done, total)` is called before each and may raise to stop.

        Raises:
            VlmqError: what is wrong with which part of the messages.
        """
        stored = job.request["messages"]
        total = sum(part["type"] != "text" for message in stored for part in message["content"])
        conversation = Conversation(messages=[])
        for at, message in enumerate(stored):
            content: list[dict[str, Any]] = []
            for index, part in enumerate(message["content"]):
                if part["type"] == "text":
                    content.append({"type": "text", "text": part["text"]})
                    continue
                before_each(len(conversation.manifest), total)
                self._load_part(job.tenant, part, f"messages.{at}.content.{index}", conversation, cutoff)
                content.append({"type": part["type"]})
            conversation.messages.append({"role": message["role"], "content": content})
        return conversation

    def _load_part(
        self, tenant: str, part: dict[str, Any], param: str, conversation: Conversation, cutoff: Cutoff
    ) -> None:
        pixels_left = self._max_pixels - conversation.pixel_count()
        if part["type"] == "image":
            source = self._source(tenant, part, param)
            image = self._load_image(source, param, pixels_left, cutoff)
            conversation.images.append(image)
            height, width = image.pixels.shape[:2]
            conversation.manifest.append(
                {"param": param, "type": "image", "sha256": image.sha256, "width": width, "height": height}
            )
            return
        if "frames" in part:
            video = self._load_frames(tenant, part, param, pixels_left, cutoff)
        else:
            video = self._media.load_video(
                self._source(tenant, part, param),
                self._rules.sampling(part, pixels_left),
                param=param,
                cutoff=cutoff,
                backend=part.get("backend", "pyav"),
            )
        conversation.videos.append(video)
        conversation.manifest.append(
            {
                "param": param,
                "type": "video",
                "sha256": video.sha256,
                "duration_s": video.duration,
                "frame_timestamps_s": list(video.timestamps),
                "frame_indices": list(video.frame_indices),
                "width": video.frames.shape[2],
                "height": video.frames.shape[1],
            }
        )

    def _load_image(self, source: Source, param: str, pixels_left: int, cutoff: Cutoff) -> DecodedImage:
        try:
            return self._media.load_image(source, param=param, limit_pixels=pixels_left, cutoff=cutoff)
        except VlmqError as error:
            if error.code is ErrorCode.IMAGE_TOO_LARGE and pixels_left < self._max_pixels:
                message = f"All images and frames of a job may have {self._max_pixels} pixels together."
                raise VlmqError(error.code, message, param=param) from None
            raise

    def _load_frames(
        self, tenant: str, part: dict[str, Any], param: str, pixels_left: int, cutoff: Cutoff
    ) -> DecodedVideo:
        times, fps = listed_times(part)
        each = max(1, pixels_left // len(times))
        return self._media.load_frames(
            [self._source(tenant, frame, f"{param}.frames.{at}") for at, frame in enumerate(part["frames"])],
            times,
            fps=fps,
            max_pixels=min(each, part.get("max_pixels") or each),
            param=param,
            cutoff=cutoff,
        )

    def _source(self, tenant: str, part: dict[str, Any], param: str) -> Source:
        if "url" in part:
            return RemoteUrl(part["url"])
        if "path" in part:
            return RootedPath(part["path"])
        with self._database.read() as session:
            sha256 = session.scalar(select(File.sha256).where(File.id == part["file_id"], File.tenant == tenant))
        if sha256 is None or not (path := self._files.path(sha256)).exists():
            raise VlmqError(
                ErrorCode.FILE_NOT_FOUND, "The file was deleted before the job ran.", param=f"{param}.file_id"
            )
        return LocalFile(path, sha256)
