"""Gemma 3, and PaliGemma, which has no chat template: its prompt is the images and a short text behind them."""

from typing import Any

import transformers as hf

from tests.engine.families.family import STILL, VISION, Family, ids, text_config

_TEMPLATE = (
    "{{ bos_token }}{% set lead = '' %}{% set turns = messages %}"
    "{% if messages[0].role == 'system' %}{% set lead = messages[0].content[0].text + '\n\n' %}"
    "{% set turns = messages[1:] %}{% endif %}"
    "{% for m in turns %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ lead if loop.first else '' }}"
    "{% for p in m.content %}{% if p.type == 'image' %}<start_of_image>{% else %}{{ p.text | trim }}{% endif %}"
    "{% endfor %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def gemma3(words: Any) -> tuple[Any, Any]:
    config = hf.Gemma3Config(
        text_config=text_config(words, head_dim=16, sliding_window=16, tie_word_embeddings=False),
        tie_word_embeddings=False,
        vision_config={"image_size": 32, "patch_size": 8, "vision_use_head": False, **VISION},
        mm_tokens_per_image=4,
        **ids(
            words,
            boi_token_index="<start_of_image>",
            eoi_token_index="<end_of_image>",
            image_token_index="<image_soft_token>",
        ),
    )
    processor: Any = hf.Gemma3Processor(
        hf.Gemma3ImageProcessor(size={"height": 32, "width": 32}), words, chat_template=_TEMPLATE, image_seq_length=4
    )
    return hf.Gemma3ForConditionalGeneration(config), processor


def paligemma(words: Any) -> tuple[Any, Any]:
    pictures: Any = hf.SiglipImageProcessor(size={"height": 32, "width": 32})
    pictures.image_seq_length = 16
    # The processor adds tokens of places and shapes, so the model is as wide as the tokenizer afterwards.
    processor: Any = hf.PaliGemmaProcessor(pictures, words)  # type: ignore[no-untyped-call]
    config = hf.PaliGemmaConfig(
        text_config={"model_type": "gemma", "head_dim": 16, **text_config(words)},
        vision_config={"image_size": 32, "patch_size": 8, "vision_use_head": False, "projection_dim": 32, **VISION},
        projection_dim=32,
        vocab_size=len(words),
        hidden_size=32,
        **ids(words, image_token_index="<image>"),
    )
    return hf.PaliGemmaForConditionalGeneration(config), processor


FAMILIES = (
    Family(
        "gemma3",
        "Gemma 3",
        "google/gemma-3-4b-it",
        gemma3,
        STILL,
        ("<start_of_turn>", "<end_of_turn>"),
        {
            "bos_token": "<bos>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        adds_bos=True,
    ),
    Family(
        "paligemma",
        "PaliGemma",
        "google/paligemma-3b-mix-224",
        paligemma,
        ("image", "images"),
        ("<image>",),
        {"bos_token": "<bos>"},
        remark="one message of the user, with at least one image in it. Its checkpoints have no chat template, so vlmq "
        "writes the prompt that it was trained on: the images, then the text.",
    ),
)
