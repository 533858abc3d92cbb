"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: positions in three dimensions, images at their own resolution."""

from typing import Any

import transformers as hf

from tests.engine.families.family import ALL, CHATML, Family, ids, text_config

_TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' and default_system %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ m.role }}\n"
    "{% for p in m.content %}"
    "{% if p.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif p.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ p.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_WITH_DEFAULT = "{% set default_system = true %}" + _TEMPLATE
_TOKENS = (*CHATML, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
_PIXELS: dict[str, Any] = {"patch_size": 8, "size": {"shortest_edge": 1024, "longest_edge": 4096}}


def _ids(words: Any) -> dict[str, Any]:
    return ids(
        words,
        image_token_id="<|image_pad|>",
        video_token_id="<|video_pad|>",
        vision_start_token_id="<|vision_start|>",
        vision_end_token_id="<|vision_end|>",
    )


def _processor(kind: Any, words: Any) -> Any:
    images, videos = hf.Qwen2VLImageProcessor(**_PIXELS), hf.Qwen2VLVideoProcessor(**_PIXELS)
    return kind(images, words, videos, chat_template=_WITH_DEFAULT)


def qwen2_vl(words: Any) -> tuple[Any, Any]:
    config = hf.Qwen2VLConfig(
        text_config=text_config(words, rope_parameters=_ROPE),
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8},
        **_ids(words),
    )
    return hf.Qwen2VLForConditionalGeneration(config), _processor(hf.Qwen2VLProcessor, words)


def qwen2_5_vl(words: Any) -> tuple[Any, Any]:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 8,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    }
    config = hf.Qwen2_5_VLConfig(
        text_config=text_config(words, rope_parameters=_ROPE), vision_config=vision, **_ids(words)
    )
    return hf.Qwen2_5_VLForConditionalGeneration(config), _processor(hf.Qwen2_5_VLProcessor, words)


def qwen3_vl(words: Any) -> tuple[Any, Any]:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 8,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    rope = {**_ROPE, "mrope_interleaved": True}
    config = hf.Qwen3VLConfig(
        text_config=text_config(words, rope_parameters=rope, head_dim=16), vision_config=vision, **_ids(words)
    )
    processor: Any = hf.Qwen3VLProcessor(  # type: ignore[no-untyped-call]
        hf.Qwen2VLImageProcessor(**_PIXELS), words, hf.Qwen3VLVideoProcessor(**_PIXELS), chat_template=_VIDEO_BARE
    )
    return hf.Qwen3VLForConditionalGeneration(config), processor


# The processor itself writes the marks around each frame.
_VIDEO_BARE = _TEMPLATE.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")

FAMILIES = (
    Family("qwen2_vl", "Qwen2-VL", "Qwen/Qwen2-VL-2B-Instruct", qwen2_vl, ALL, _TOKENS),
    Family("qwen2_5_vl", "Qwen2.5-VL", "Qwen/Qwen2.5-VL-3B-Instruct", qwen2_5_vl, ALL, _TOKENS),
    Family("qwen3_vl", "Qwen3-VL", "Qwen/Qwen3-VL-2B-Instruct", qwen3_vl, ALL, _TOKENS),
)
