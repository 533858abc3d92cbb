"""What a family's file says of it, and what small checkpoints have in common."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import transformers as hf
from tokenizers.processors import TemplateProcessing

from vlmq.config import BUNDLED_CHECKPOINT

Case = Literal["text", "image", "images", "turns", "system", "video", "image and video"]
Maker = Callable[[Any], tuple[Any, Any]]

# Every modality but video, for the families that take several images and a system message.
STILL: tuple[Case, ...] = ("text", "image", "images", "turns", "system")
ALL: tuple[Case, ...] = (*STILL, "video", "image and video")

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
CHATML = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Family:
    """One family of checkpoints.

    `make` builds the model and the processor around a tokenizer that has the `special` tokens, and those in `named`
    as attributes of that name. `cases` are the conversations that the family takes: each is a test, and what is
    missing must be refused. With `adds_bos` the tokenizer writes the start token by itself. A `remark` is for the docs.
    """

    name: str
    title: str
    example: str
    make: Maker
    cases: tuple[Case, ...]
    special: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)
    adds_bos: bool = False
    remark: str = ""


def tokenizer(family: Family) -> Any:
    """The bundled tokenizer with the family's own special tokens."""
    made: Any = hf.AutoTokenizer.from_pretrained(
        BUNDLED_CHECKPOINT,
        extra_special_tokens={key: value for key, value in family.named.items() if key != "bos_token"},
        **{key: value for key, value in family.named.items() if key == "bos_token"},
    )
    made.chat_template = None
    made.add_special_tokens({"additional_special_tokens": list(family.special)}, replace_extra_special_tokens=False)
    if family.adds_bos:
        start = (made.bos_token, made.bos_token_id)
        made.backend_tokenizer.post_processor = TemplateProcessing(single=f"{start[0]} $A", special_tokens=[start])
    return made


def ids(words: Any, **tokens: str) -> dict[str, Any]:
    """The ids of tokens, by the names that a configuration has for them."""
    return {name: words.convert_tokens_to_ids(token) for name, token in tokens.items()}


def text_config(words: Any, **more: Any) -> dict[str, Any]:
    # Families' own ids lie outside of the small vocabulary.
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    return {"vocab_size": len(words), **TEXT, **ends, **more}


def enlarge_weights(model: Any) -> None:
    """Draw weights so large that every pixel and every word has a say in the next token, and gates are open."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.2)
            elif "gate" in name:
                weight.fill_(1.0)
