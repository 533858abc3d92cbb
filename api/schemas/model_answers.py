"""What is said of a served model."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.answers import Page


class ModelAnswer(BaseModel):
    """A served model and what its workers say of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "tiny-int8",
                    "object": "model",
                    "state": "ready",
                    "stage": None,
                    "progress": None,
                    "error": None,
                    "checkpoint": "tiny-vlm",
                    "revision": None,
                    "engine": "generate",
                    "quantization": "quanto-int8",
                    "adapter": None,
                    "modalities": ["image", "text", "video"],
                    "max_in_flight": 2,
                    "default_num_frames": None,
                    "max_frames": None,
                    "workers": 1,
                    "details": {
                        "device": "cpu",
                        "dtype": "float32",
                        "attn_implementation": "sdpa",
                        "attn_reason": "flash-attn needs a CUDA device",
                        "weight_bytes_before": 6_721_600,
                        "weight_bytes": 2_117_096,
                        "max_context": 8192,
                    },
                }
            ]
        }
    )

    id: str
    object: Literal["model"]
    state: Literal["ready", "loading", "failed", "unavailable"]
    stage: str | None = Field(description="while it loads: downloading, loading, quantizing, adapting, warming_up")
    progress: float | None = Field(description="while it loads: the fraction of the stage that is done, where known")
    error: str | None = Field(description="why it could not be loaded")
    checkpoint: str
    revision: str | None
    engine: str
    quantization: str | None
    adapter: str | None
    modalities: list[str]
    max_in_flight: int
    default_num_frames: int | None
    max_frames: int | None
    workers: int = Field(description="live workers that hold it")
    details: dict[str, Any] | None = Field(
        description="the engine's own words: device, dtype, attention, context length, bytes of the weights, …"
    )


class ModelPage(Page[ModelAnswer]):
    """Models."""
