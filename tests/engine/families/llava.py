"""LLaVA with its many language models: 1.5, Interleave, NeXT, OneVision."""

from typing import Any

import transformers as hf

from tests.engine.families.family import ALL, CHATML, STILL, VISION, Family, ids, text_config

_MEDIA_FIRST = (
    "{% for p in m.content if p.type == 'image' %}<image>\n{% endfor %}"
    "{% for p in m.content if p.type == 'video' %}<video>\n{% endfor %}"
)
_WORDS = "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}"
_VICUNA = (
    "{% for m in messages %}{% if m.role == 'user' %}USER: {% elif m.role == 'assistant' %}ASSISTANT: {% endif %}"
    + _MEDIA_FIRST
    + _WORDS
    + "{{ eos_token if m.role == 'assistant' else ' ' }}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    + _MEDIA_FIRST
    + _WORDS
    + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MISTRAL = (
    "{% for m in messages %}{% if m.role == 'system' %}<<SYS>>\n"
    + _WORDS
    + "\n<</SYS>>\n\n{% elif m.role == 'user' %}[INST] "
    + _MEDIA_FIRST
    + _WORDS
    + " [/INST]{% else %} "
    + _WORDS
    + "{{ eos_token }}{% endif %}{% endfor %}"
)
_GRIDS = [[32, 32], [32, 64], [64, 32], [64, 64]]


def _clip() -> Any:
    return hf.CLIPVisionConfig(image_size=32, patch_size=16, **VISION)


def _siglip() -> Any:
    return hf.SiglipVisionConfig(image_size=32, patch_size=16, **VISION)


def llava(words: Any) -> tuple[Any, Any]:
    config = hf.LlavaConfig(
        text_config=hf.LlamaConfig(**text_config(words)),
        vision_config=_clip(),
        **ids(words, image_token_index="<image>"),
    )
    processor: Any = hf.LlavaProcessor(  # type: ignore[no-untyped-call]
        hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        words,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_VICUNA,
    )
    return hf.LlavaForConditionalGeneration(config), processor


def llava_interleave(words: Any) -> tuple[Any, Any]:
    config = hf.LlavaConfig(
        text_config=hf.Qwen2Config(**text_config(words)),
        vision_config=_siglip(),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        **ids(words, image_token_index="<image>"),
    )
    processor: Any = hf.LlavaProcessor(  # type: ignore[no-untyped-call]
        hf.SiglipImageProcessor(size={"height": 32, "width": 32}),
        words,
        patch_size=16,
        vision_feature_select_strategy="full",
        chat_template=_QWEN,
    )
    return hf.LlavaForConditionalGeneration(config), processor


def llava_next(words: Any) -> tuple[Any, Any]:
    config = hf.LlavaNextConfig(
        text_config=hf.MistralConfig(**text_config(words)),
        vision_config=_clip(),
        image_grid_pinpoints=_GRIDS,
        **ids(words, image_token_index="<image>"),
    )
    processor: Any = hf.LlavaNextProcessor(  # type: ignore[no-untyped-call]
        hf.LlavaNextImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=_GRIDS
        ),
        words,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_MISTRAL,
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def llava_onevision(words: Any) -> tuple[Any, Any]:
    config = hf.LlavaOnevisionConfig(
        text_config=hf.Qwen2Config(**text_config(words)),
        vision_config=_siglip(),
        image_grid_pinpoints=_GRIDS,
        **ids(words, image_token_index="<image>", video_token_index="<video>"),
    )
    size = {"height": 32, "width": 32}
    processor: Any = hf.LlavaOnevisionProcessor(  # type: ignore[no-untyped-call]
        hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=_GRIDS),
        words,
        hf.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=_QWEN,
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


FAMILIES = (
    Family(
        "llava",
        "LLaVA 1.5",
        "llava-hf/llava-1.5-7b-hf",
        llava,
        STILL,
        ("<image>",),
        {"bos_token": "<s>"},
        adds_bos=True,
    ),
    Family(
        "llava_interleave",
        "LLaVA-Interleave (Qwen)",
        "llava-hf/llava-interleave-qwen-0.5b-hf",
        llava_interleave,
        STILL,
        ("<image>", *CHATML),
    ),
    Family(
        "llava_next",
        "LLaVA-NeXT",
        "llava-hf/llava-v1.6-mistral-7b-hf",
        llava_next,
        STILL,
        ("<image>",),
        {"bos_token": "<s>"},
        adds_bos=True,
    ),
    Family(
        "llava_onevision",
        "LLaVA-OneVision",
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        llava_onevision,
        ALL,
        ("<image>", "<video>", *CHATML),
    ),
)
