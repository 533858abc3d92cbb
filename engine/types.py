"""What goes into an engine and what comes out of it. Nothing here needs torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.generation_parameters import GenerationParameters as GenerationParameters  # noqa: PLC0414 - for importers
from vlmq.errors import VlmqError

Picture: TypeAlias = NDArray[np.uint8]
Modality = Literal["text", "image", "video"]
FinishReason = Literal["stop", "length", "cancelled", "deadline"]

LoadingStage = Literal["downloading", "loading", "quantizing", "adapting", "warming_up"]
# Called while a checkpoint loads, with the fraction of the stage that is done, where it is known.
OnProgress: TypeAlias = Callable[[LoadingStage, float | None], None]

ALL_MODALITIES: frozenset[Modality] = frozenset({"text", "image", "video"})


@dataclass(frozen=True, slots=True)
class CheckpointSettings:
    """Which checkpoint to load, and how."""

    checkpoint: str
    engine: Literal["generate", "scripted"] = "generate"
    revision: str | None = None
    device: Literal["auto", "cuda", "cpu"] = "auto"
    device_map: str | Mapping[str, int | str] | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    attn_implementation: str = "auto"
    quantization: str | None = None
    adapter: str | None = None
    adapter_revision: str | None = None
    warm_up: bool = True
    max_model_len: int | None = None
    modalities: frozenset[Modality] = ALL_MODALITIES
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class VideoDefaults:
    """How the checkpoint's own processor samples a video; None where it does not say."""

    num_frames: int | None = None
    fps: float | None = None
    min_frames: int | None = None
    max_frames: int | None = None


@dataclass(frozen=True, slots=True)
class EngineDescription:
    """What was loaded, in the words that `/v1/models` shows.

    `weight_bytes` are those that the weights take in memory, `weight_bytes_before` those that they would take without
    quantization, in the same dtype. `device_bytes` is what torch has allocated on the GPUs for them, None on a CPU.
    """

    engine: str
    checkpoint: str
    revision: str
    architecture: str
    device: str
    dtype: str
    attn_implementation: str
    attn_reason: str
    weight_bytes: int
    max_context: int
    modalities: frozenset[Modality]
    weight_bytes_before: int = 0
    device_bytes: int | None = None
    quantization: str | None = None
    adapter: str | None = None
    video_defaults: VideoDefaults = VideoDefaults()


@dataclass(frozen=True, slots=True, eq=False)
class VideoClip:
    """Sampled frames of one video, (T, H, W, 3), and where in the video they stood.

    `timestamps` are seconds, one for each frame; `frame_indices`, `fps` and `total_frames` are the source's.
    """

    frames: Picture
    timestamps: tuple[float, ...]
    frame_indices: tuple[int, ...]
    fps: float
    total_frames: int
    duration: float


@dataclass(frozen=True, slots=True, eq=False)
class PromptRequest:
    """A chat in transformers' form, and the pixels that its image and video parts stand for, in their order.

    A part is `{"type": "text", "text": …}`, `{"type": "image"}` or `{"type": "video"}`; a message's content may also
    be a string. If the last message is the assistant's, the model continues it.
    """

    messages: list[dict[str, Any]]
    images: list[Picture] = field(default_factory=list)
    videos: list[VideoClip] = field(default_factory=list)
    chat_template: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    return_full_text: bool = False

    @property
    def continues(self) -> bool:
        return bool(self.messages) and self.messages[-1].get("role") == "assistant"


@dataclass(frozen=True, slots=True)
class TemplateCall:
    """A chat for a template that came with it: what transformers would give to the template, special tokens included.

    If it `continues`, the text ends with the last message's.
    """

    source: str
    messages: list[dict[str, Any]]
    variables: dict[str, Any]
    continues: bool


# Renders it where hostile Jinja does no harm; raises VlmqError with TEMPLATE_ERROR, …_FORBIDDEN or …_LIMIT.
RenderTemplate: TypeAlias = Callable[[TemplateCall], str]


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """One generation, ready to run. `max_new_tokens` is what was asked for, or less if the context has less room.

    `deadline` is a time of `time.monotonic()`, later by what the sequence waits for others in the engine. `inputs` and
    `options` belong to the engine that prepared them. `prompt` is the text that the template wrote; `lead` is what of
    it a reader would see, if the full text is wanted, and empty if not.
    """

    id: str
    deadline: float | None
    parameters: GenerationParameters
    prompt_tokens: int
    image_tokens: int
    video_tokens: int
    max_new_tokens: int
    inputs: Any = field(repr=False)
    options: Any = field(default=None, repr=False)
    prompt: str = field(default="", repr=False)
    lead: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt is being read."""

    id: str
    prompt_tokens: int
    image_tokens: int
    video_tokens: int


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that a step appended: whole characters, no special tokens, nothing of a stop string.

    `tokens` counts the tokens since the sequence's last delta.
    """

    id: str
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's natural logarithm of probability under the model, and the likeliest tokens in its place.

    `text` is what the token reads as alone, `bytes` what it adds to the text; both are empty for special tokens.
    """

    token_id: int
    text: str
    bytes: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """One of the texts that a sequence was asked for, with how it ended."""

    text: str
    finish_reason: FinishReason
    completion_tokens: int
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a sequence that ended well or was ended. `text` is what its deltas add up to.

    It is the first of `outputs`, of which there are several if several were asked for, and none if the sequence never
    ran. `completion_tokens` counts those of all outputs, and end tokens too. Seconds count from `Started`:
    `first_token_s` to the first token (None when there was none), `generation_s` to the end. `seed` is the one that was
    used, None without sampling.
    """

    id: str
    finish_reason: FinishReason
    text: str
    completion_tokens: int
    seed: int | None
    first_token_s: float | None
    generation_s: float
    outputs: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a sequence that broke, with the text so far."""

    id: str
    error: VlmqError
    text: str
    completion_tokens: int


Event: TypeAlias = Started | Delta | Finished | Failed
