"""Mllama, which is Llama 3.2 Vision: images come in through cross-attention, one token standing for each."""

from typing import Any

import transformers as hf

from tests.engine.families.family import STILL, Family, ids, text_config

_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% for p in m.content %}{% if p.type == 'image' %}<|image|>{% else %}{{ p.text | trim }}{% endif %}{% endfor %}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def mllama(words: Any) -> tuple[Any, Any]:
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
        "vision_output_dim": 64,
        "intermediate_layers_indices": [0],
        "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1], [1, 3], [1, 4], [2, 2], [3, 1], [4, 1]],
        "max_num_tiles": 4,
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    config = hf.MllamaConfig(
        text_config=text_config(words, num_hidden_layers=3, cross_attention_layers=[1], rope_parameters=rope),
        vision_config=vision,
        **ids(words, image_token_index="<|image|>"),
    )
    processor: Any = hf.MllamaProcessor(  # type: ignore[no-untyped-call]
        hf.MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=4), words, chat_template=_TEMPLATE
    )
    return hf.MllamaForConditionalGeneration(config), processor


FAMILIES = (
    Family(
        "mllama",
        "Mllama (Llama 3.2 Vision)",
        "meta-llama/Llama-3.2-11B-Vision-Instruct",
        mllama,
        STILL,
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>", "<|image|>"),
        {"bos_token": "<|begin_of_text|>"},
        adds_bos=True,
    ),
)
