"""What a request may ask for, as `VLMQ_LIMITS__…` sets it."""

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class Limits(BaseModel):
    """What a request may ask for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_queued: PositiveInt | None = Field(
        10_000, description='jobs of one tenant that may wait; `VLMQ_LIMITS={"max_queued": null}` for any number'
    )
    max_body_bytes: PositiveInt = 64 * 2**20
    max_upload_bytes: PositiveInt = 2 * 2**30
    max_json_depth: PositiveInt = 32
    max_messages: PositiveInt = 256
    max_text_chars: PositiveInt = Field(
        1_000_000, description="of all messages together; `template_kwargs` and `variables` may have as many each"
    )
    max_images: PositiveInt = 32
    max_videos: PositiveInt = 4
    max_new_tokens: PositiveInt = 8192
    max_image_bytes: PositiveInt = 64 * 2**20
    max_image_pixels: PositiveInt = 64_000_000
    max_job_pixels: PositiveInt = Field(
        128_000_000, description="of all images and frames of a job; more images are refused, frames are scaled down"
    )
    max_video_bytes: PositiveInt = 2 * 2**30
    max_video_pixels: PositiveInt = Field(8192 * 4320, description="width times height of a video's picture")
    max_video_s: PositiveFloat = 4 * 3600.0
    max_video_frames: PositiveInt = Field(768, description="frames of one video at most, whatever its model takes")
    fetch_timeout_s: PositiveFloat = Field(60.0, description="a whole download, from connect to the last byte")
    decode_timeout_s: PositiveFloat = 60.0
    decode_memory_bytes: PositiveInt = Field(2 * 2**30, description="address space of one decoding child")
    start_s: PositiveFloat = Field(24 * 3600.0, description="a job's `deadlines.start_s` unless it says otherwise")
    run_s: PositiveFloat = Field(900.0, description="a job's `deadlines.run_s` unless it says otherwise")
