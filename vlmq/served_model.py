"""The settings of one model that is served, as `VLMQ_MODELS` or the models file names them."""

from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

DEVICE_MAPS = ("auto", "balanced", "sequential")

Quantization = Literal["quanto-int8", "quanto-int4", "quanto-float8", "bitsandbytes-8bit", "bitsandbytes-4bit"]


class ServedModel(BaseModel):
    """A checkpoint under a name, with its settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    checkpoint: str = Field(min_length=1, description="a directory, or a repository on the Hugging Face hub")
    revision: str | None = Field(None, description="a commit of the repository; pin it in production")
    engine: Literal["generate", "scripted"] = "generate"
    device: Literal["auto", "cuda", "cpu"] = "auto"
    device_map: str | dict[str, int | str] | None = Field(
        None, description="spread over several GPUs: auto | balanced | sequential, or a GPU for each module's name"
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    attn_implementation: str = Field("auto", description="auto | sdpa | eager | flash_attention_2 | …")
    quantization: Quantization | None = Field(None, description="of the weights: " + " | ".join(get_args(Quantization)))
    adapter: str | None = Field(None, min_length=1, description="LoRA weights to add: a directory or a repository")
    adapter_revision: str | None = Field(None, description="a commit of the adapter's repository")
    warm_up: bool = Field(True, description="generate a little before the first job, which is quicker for it")
    max_model_len: PositiveInt | None = Field(None, description="refuse prompts with more tokens than this")
    max_in_flight: PositiveInt = Field(
        2, description="jobs that one worker holds at once; one runs while the next loads its media"
    )
    default_num_frames: PositiveInt | None = Field(
        None, description="frames of a video when the job does not say which; the checkpoint's own default, or 8"
    )
    max_frames: PositiveInt | None = Field(
        None, description="frames of one video at most; the checkpoint's own maximum, or 128"
    )
    modalities: frozenset[Literal["text", "image", "video"]] = frozenset({"text", "image", "video"})

    @field_validator("device_map", mode="before")
    @classmethod
    def _check_device_map(cls, given: object) -> object:
        if isinstance(given, dict):
            usable = bool(given) and all(
                place == "cpu" or (type(place) is int and place >= 0) for place in given.values()
            )
        else:
            usable = given in (None, *DEVICE_MAPS)
        if not usable:
            each = f"it takes {', '.join(DEVICE_MAPS)}, or a GPU's number or \"cpu\" for each module's name"
            raise ValueError(f"{each}; a model that is on one device names it as device")
        return given

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.device_map is not None and self.device != "auto":
            raise ValueError("device and device_map exclude each other")
        if self.adapter_revision is not None and self.adapter is None:
            raise ValueError("adapter_revision needs an adapter")
        return self
