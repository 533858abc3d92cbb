"""The guide's template for Llama 3.2 Vision, with that family's processor and its placeholder."""

from typing import Any

import pytest
import transformers as hf
from PIL import Image

from engine.prompt import PromptBuilder
from engine.types import Picture, PromptRequest
from tests.engine.conftest import render_here
from tests.vlmq.test_chat_templates import GUIDE
from vlmq.config import BUNDLED_CHECKPOINT

CONTROL = ["<|begin_of_text|>", "<|image|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


@pytest.fixture(scope="module")
def processor() -> Any:
    words: Any = hf.AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
    words.add_special_tokens({"additional_special_tokens": CONTROL, "bos_token": CONTROL[0]})
    pictures = hf.MllamaImageProcessor(size={"height": 32, "width": 32}, max_image_tiles=2)
    return hf.MllamaProcessor(pictures, words, chat_template=GUIDE)  # type: ignore[no-untyped-call]


def test_the_guides_template_gives_what_transformers_gives(processor: Any, pictures: list[Picture]) -> None:
    builder = PromptBuilder(processor, frozenset({"text", "image"}), render_here)
    chat: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this, an <|image|>?"}]},
    ]
    built = builder.build(PromptRequest(chat, pictures[:1], chat_template=GUIDE))

    plain = [chat[0], {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this, an @?"}]}]
    text = processor.apply_chat_template(plain, chat_template=GUIDE, add_generation_prompt=True)
    assert built.text.replace("<\u200b|image|>", "@") == text
    assert built.text.startswith("<|begin_of_text|><|start_header_id|>system<|end_header_id|>")
    theirs = processor(
        text=built.text, images=[Image.fromarray(pictures[0])], add_special_tokens=False, return_tensors="pt"
    )
    assert built.inputs["input_ids"].tolist() == theirs["input_ids"].tolist()
    assert built.image_tokens == 1
