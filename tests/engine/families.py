"""Small random checkpoints of families other than the bundled one, made of the classes that transformers ships."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from vlmq.config import BUNDLED_CHECKPOINT

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {% for p in m.content %}"
    "{% if p.type == 'image' %}<image>{% elif p.type == 'video' %}<video>{% else %}{{ p.text }}{% endif %}"
    "{% endfor %}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
}
VISION: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer(*special: str) -> Any:
    made: Any = hf.AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
    made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def llava(words: Any) -> tuple[Any, Any]:
    image = words.convert_tokens_to_ids("<image>")
    vision: Any = hf.CLIPVisionConfig(image_size=32, patch_size=16, **VISION)
    config = hf.LlavaConfig(
        text_config=hf.LlamaConfig(vocab_size=len(words), **TEXT), vision_config=vision, image_token_index=image
    )
    pictures = hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor: Any = hf.LlavaProcessor(  # type: ignore[no-untyped-call]
        pictures,
        words,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    return hf.LlavaForConditionalGeneration(config), processor


def llava_onevision(words: Any) -> tuple[Any, Any]:
    grids = [[32, 32], [32, 64], [64, 32], [64, 64]]
    vision: Any = hf.SiglipVisionConfig(image_size=32, patch_size=16, **VISION)
    config = hf.LlavaOnevisionConfig(
        text_config=hf.Qwen2Config(vocab_size=len(words), **TEXT),
        vision_config=vision,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grids,
    )
    size = {"height": 32, "width": 32}
    processor: Any = hf.LlavaOnevisionProcessor(  # type: ignore[no-untyped-call]
        hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=grids),
        words,
        hf.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def idefics2(words: Any) -> tuple[Any, Any]:
    config = hf.Idefics2Config(
        text_config=hf.MistralConfig(vocab_size=len(words), **TEXT),
        vision_config={"image_size": 64, "patch_size": 8, **VISION},
        perceiver_config={
            "hidden_size": 32,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 1,
        },
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )
    size = {"longest_edge": 64, "shortest_edge": 32}
    processor: Any = hf.Idefics2Processor(
        hf.Idefics2ImageProcessor(size=size, do_image_splitting=False),
        words,
        image_seq_len=4,
        chat_template=TEMPLATE,
    )
    return hf.Idefics2ForConditionalGeneration(config), processor


def idefics3(words: Any) -> tuple[Any, Any]:
    config = hf.Idefics3Config(
        text_config=hf.LlamaConfig(vocab_size=len(words), **TEXT),
        vision_config={"image_size": 32, "patch_size": 8, **VISION},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    pictures = hf.Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor: Any = hf.Idefics3Processor(pictures, words, image_seq_len=4, chat_template=TEMPLATE)
    return hf.Idefics3ForConditionalGeneration(config), processor


IDEFICS = ("<image>", "<fake_token_around_image>", "<end_of_utterance>")
TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))
FAMILIES: dict[str, tuple[Callable[[Any], tuple[Any, Any]], tuple[str, ...]]] = {
    "llava": (llava, ("<image>",)),
    "llava_onevision": (llava_onevision, ("<image>", "<video>")),
    "idefics2": (idefics2, IDEFICS),
    "idefics3": (idefics3, (*IDEFICS, "<global-img>", *TILES)),
}


def save_family(name: str, folder: Path) -> None:
    make, special = FAMILIES[name]
    torch.manual_seed(0)
    model, processor = make(tokenizer(*special))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
