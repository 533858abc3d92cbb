"""Pixtral and Mistral 3: one processor, images at their own resolution with a token at the end of each row."""

from typing import Any

import transformers as hf

from tests.engine.families.family import STILL, VISION, Family, ids, text_config

_WORDS = "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}"
_PARTS = "{% for p in m.content %}{{ '[IMG]' if p.type == 'image' else p.text }}{% endfor %}"
# Pixtral's system message goes into the last turn of the user, Mistral's has tokens of its own.
_PIXTRAL = (
    "{{ bos_token }}{% set ns = namespace(lead='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.lead = m.content[0].text + '\n\n' %}{% elif m.role == 'user' %}"
    "[INST]{{ ns.lead if loop.last else '' }}" + _PARTS + "[/INST]{% else %}" + _WORDS + "{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}[SYSTEM_PROMPT]" + _WORDS + "[/SYSTEM_PROMPT]"
    "{% elif m.role == 'user' %}[INST]" + _PARTS + "[/INST]{% else %}" + _WORDS + "{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
_TOKENS = ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")


def _vision() -> Any:
    return hf.PixtralVisionConfig(image_size=64, patch_size=8, **VISION)


def _processor(words: Any, template: str, merge: int) -> Any:
    pictures = hf.PixtralImageProcessor(size={"longest_edge": 64}, patch_size=8)
    made: Any = hf.PixtralProcessor(pictures, words, patch_size=8, spatial_merge_size=merge, chat_template=template)
    return made


def pixtral(words: Any) -> tuple[Any, Any]:
    config = hf.LlavaConfig(
        text_config=hf.MistralConfig(**text_config(words)),
        vision_config=_vision(),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        **ids(words, image_token_index="[IMG]"),
    )
    return hf.LlavaForConditionalGeneration(config), _processor(words, _PIXTRAL, 1)


def mistral3(words: Any) -> tuple[Any, Any]:
    config = hf.Mistral3Config(
        text_config=hf.MistralConfig(**text_config(words)),
        vision_config=_vision(),
        spatial_merge_size=2,
        **ids(words, image_token_index="[IMG]"),
    )
    return hf.Mistral3ForConditionalGeneration(config), _processor(words, _MISTRAL, 2)


FAMILIES = (
    Family(
        "pixtral",
        "Pixtral",
        "mistral-community/pixtral-12b",
        pixtral,
        STILL,
        _TOKENS,
        {"bos_token": "<s>"},
        adds_bos=True,
    ),
    Family(
        "mistral3",
        "Mistral 3",
        "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
        mistral3,
        STILL,
        _TOKENS,
        {"bos_token": "<s>"},
        adds_bos=True,
    ),
)
