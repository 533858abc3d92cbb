"""Idefics2, Idefics3 and SmolVLM."""

from typing import Any

import transformers as hf

from tests.engine.families.family import STILL, VISION, Family, ids, text_config

_BODY = (
    "{% for m in messages %}{{ m.role | capitalize }}{{ ':' if m.content[0].type == 'image' else ': ' }}"
    "{% for p in m.content %}{{ '<image>' if p.type == 'image' else p.text }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
_TOKENS = ("<image>", "<fake_token_around_image>", "<end_of_utterance>")
_TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))


def idefics2(words: Any) -> tuple[Any, Any]:
    config = hf.Idefics2Config(
        text_config=hf.MistralConfig(**text_config(words)),
        vision_config={"image_size": 64, "patch_size": 8, **VISION},
        perceiver_config={
            "hidden_size": 32,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 1,
        },
        **ids(words, image_token_id="<image>"),
    )
    size = {"longest_edge": 64, "shortest_edge": 32}
    processor: Any = hf.Idefics2Processor(
        hf.Idefics2ImageProcessor(size=size, do_image_splitting=False), words, image_seq_len=4, chat_template=_BODY
    )
    return hf.Idefics2ForConditionalGeneration(config), processor


def idefics3(words: Any) -> tuple[Any, Any]:
    config = hf.Idefics3Config(
        text_config=hf.LlamaConfig(**text_config(words)),
        vision_config={"image_size": 32, "patch_size": 8, **VISION},
        scale_factor=2,
        **ids(words, image_token_id="<image>"),
    )
    pictures = hf.Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    template = "<|begin_of_text|>" + _BODY
    processor: Any = hf.Idefics3Processor(pictures, words, image_seq_len=4, chat_template=template)
    return hf.Idefics3ForConditionalGeneration(config), processor


def smolvlm(words: Any) -> tuple[Any, Any]:
    config = hf.SmolVLMConfig(
        text_config=hf.LlamaConfig(**text_config(words)),
        vision_config={"image_size": 32, "patch_size": 8, **VISION},
        scale_factor=2,
        **ids(words, image_token_id="<image>"),
    )
    sizes: dict[str, Any] = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    processor: Any = hf.SmolVLMProcessor(
        hf.SmolVLMImageProcessor(**sizes),
        words,
        hf.SmolVLMVideoProcessor(
            size={"longest_edge": 32},
            max_image_size={"longest_edge": 32},
            fps=1,
            num_frames=64,
        ),
        image_seq_len=4,
        chat_template="<|im_start|>" + _BODY,
    )
    return hf.SmolVLMForConditionalGeneration(config), processor


FAMILIES = (
    Family(
        "idefics2",
        "Idefics2",
        "HuggingFaceM4/idefics2-8b",
        idefics2,
        STILL,
        _TOKENS,
        {"bos_token": "<s>"},
        adds_bos=True,
    ),
    Family(
        "idefics3",
        "Idefics3",
        "HuggingFaceM4/Idefics3-8B-Llama3",
        idefics3,
        STILL,
        (*_TOKENS, "<global-img>", *_TILES),
        {"bos_token": "<|begin_of_text|>"},
        adds_bos=True,
    ),
    Family(
        "smolvlm",
        "SmolVLM",
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        smolvlm,
        (*STILL, "video"),
        (*_TOKENS, "<global-img>", "<video>", *_TILES),
        {"bos_token": "<|im_start|>"},
        remark="images or videos, not both in one conversation: its processor would lose the images.",
    ),
)
