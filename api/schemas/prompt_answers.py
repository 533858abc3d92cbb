"""What a prompt is and takes."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class PromptTokens(BaseModel):
    prompt_tokens: int
    image_tokens: int
    video_tokens: int


class JobPromptAnswer(BaseModel):
    """What the chat template made of a job's messages, with one placeholder for each image and video."""

    object: Literal["prompt"]
    job_id: str
    text: str
    tokens: PromptTokens


class RenderedPrompt(BaseModel):
    """A prompt as a job would have it, what it would take, and how long that would last."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "prompt",
                    "model": "tiny-vlm",
                    "text": "<|im_start|>user\n<|video_pad|>What happens?<|im_end|>\n<|im_start|>assistant\n",
                    "tokens": {"prompt_tokens": 43, "image_tokens": 0, "video_tokens": 16},
                    "images": 0,
                    "frames": 2,
                    "media": [
                        {
                            "param": "messages.0.content.0",
                            "type": "video",
                            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                            "duration_s": 6.0,
                            "frame_timestamps_s": [1.0, 2.5],
                            "frame_indices": [8, 20],
                            "width": 224,
                            "height": 224,
                        }
                    ],
                    "max_new_tokens": 64,
                    "timings": {"queued": 0.004, "media": 0.031, "prompt": 0.009, "total": 0.044},
                    "estimate_s": 0.38,
                }
            ]
        }
    )

    object: Literal["prompt"]
    model: str
    text: str
    tokens: PromptTokens
    images: int
    frames: int
    media: list[dict[str, Any]] = Field(description="each image's size, each video's frames and their times")
    max_new_tokens: int = Field(description="what was asked for, or less if the context has less room")
    timings: dict[str, float] = Field(description="seconds that loading media and rendering took")
    estimate_s: float | None = Field(
        description="seconds for an answer of that length, by your last jobs of this model; null without any"
    )
