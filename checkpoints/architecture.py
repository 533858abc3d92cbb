"""The tiny checkpoint's parts: configuration, tokenizer, processor and chat template.

The architecture is Qwen3-VL (without DeepStack) as transformers ships it, so the checkpoint
loads through the Auto classes like any other; only the numbers are small.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoProcessor,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from checkpoints import questions
from checkpoints.scenes import random_clip, random_scene

HOME = Path(__file__).parent / "tiny-vlm"
VOCABULARY = 640
END_OF_TEXT, END_OF_TURN = "<|endoftext|>", "<|im_end|>"
SPECIAL = (
    END_OF_TEXT, "<|im_start|>", END_OF_TURN, "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
PATCH = 8  # pixels of a side of a patch
MERGE = 2  # 2 x 2 patches become one token, 16 pixels wide
# 22 tokens of 16 x 16 pixels: a square picture becomes 64 x 64, a 4:3 one 80 x 64. The
# number leaves room above those sizes, so that rounding never costs a row of tokens.
MAX_PIXELS = 22 * 256
MIN_PIXELS = 12 * 256

# The split of Qwen2's tokenizer: words with their leading space, single digits, punctuation.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# The processor itself writes the timestamps and the vision tokens around each pair of a
# video's frames, so that the template gives the bare place holder there.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' or 'video' in part -%}
<|video_pad|>
{%- elif 'text' in part -%}
{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""


def _corpus() -> Iterator[str]:
    """Text of the kind that the model will read and write, to learn the tokens from."""
    rng = Random(0)
    for _ in range(3000):
        asked = questions.image_questions(random_scene(rng), rng)
        asked += questions.images_questions([random_scene(rng) for _ in range(3)], rng)
        asked += questions.clip_questions(random_clip(rng), rng)
        asked += questions.text_questions(rng)
        for question in asked:
            for user, assistant in question.turns:
                yield from ("user\n", user, "assistant\n", assistant)
        yield from ("system\n", rng.choice(questions.SYSTEM))
        yield from [f"<{rng.uniform(0, 20):.1f} seconds>"] * 4


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text can be written, the world's words are one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    wrap: Any = PreTrainedTokenizerFast
    wrapped: PreTrainedTokenizerFast = wrap(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    return wrapped


def make_processor(tokenizer: PreTrainedTokenizerFast | None = None) -> Qwen3VLProcessor:
    """The processor: any picture becomes 12 to 22 tokens, any video as many for two frames."""
    numbers: dict[str, Any] = {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    images = Qwen2VLImageProcessor(size={"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}, **numbers)
    videos = Qwen3VLVideoProcessor(
        # For a video these limits are for all frames together; the cap is for one frame.
        size={"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS * 768},
        cap_pixels_per_frame=True,
        max_video_tokens=MAX_PIXELS // 256,
        min_frames=4,
        max_frames=16,
        fps=4,
        **numbers,
    )
    join: Any = Qwen3VLProcessor
    processor: Qwen3VLProcessor = join(images, tokenizer or make_tokenizer(), videos, CHAT_TEMPLATE)
    return processor


def load_processor(folder: Path = HOME) -> Any:
    """The processor as anyone would load it."""
    load: Any = AutoProcessor.from_pretrained
    return load(folder)


def make_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    """About 1.7 million parameters."""
    ids: dict[str, Any] = {t: tokenizer.convert_tokens_to_ids(t) for t in SPECIAL}
    config = Qwen3VLConfig(
        architectures=["Qwen3VLForConditionalGeneration"],
        tie_word_embeddings=True,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "bos_token_id": None,
            "eos_token_id": ids[END_OF_TURN],
            "pad_token_id": ids[END_OF_TEXT],
        },
        vision_config={
            "depth": 4,
            "hidden_size": 96,
            "intermediate_size": 288,
            "num_heads": 3,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "out_hidden_size": 128,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [],
        },
    )
    config.dtype = "float32"
    return config


def place_signal(side: int, width: int, strength: float = 0.5) -> torch.Tensor:
    """Smooth functions of row and column as embeddings, (side * side, width); rms `strength`.

    A small random start leaves a model this small blind to where things are for thousands of
    steps: its rotary positions tell of distances only.
    """
    along = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(along, along, indexing="ij")
    waves = [y, x, y * x]
    for axis in (y, x):
        waves += [torch.sin(torch.pi * axis / 2), torch.sin(torch.pi * axis)]
        waves += [torch.cos(torch.pi * axis)]
    features = torch.stack([(w - w.mean()) / w.std() for w in waves], -1).flatten(0, 1)
    directions = torch.nn.init.orthogonal_(torch.empty(len(waves), width))
    signal = features @ directions
    return signal * (strength / signal.square().mean().sqrt())


def make_model(config: Qwen3VLConfig) -> Qwen3VLForConditionalGeneration:
    """The model with random weights and a greedy generation configuration."""
    model = Qwen3VLForConditionalGeneration(config)
    embedding: torch.Tensor = model.model.visual.pos_embed.weight.data
    embedding.copy_(place_signal(8, embedding.shape[1]))
    text: Any = config.text_config
    make: Any = GenerationConfig
    model.generation_config = make(
        do_sample=False,
        max_new_tokens=64,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
    )
    return model


def save(model: Qwen3VLForConditionalGeneration, processor: Qwen3VLProcessor, folder: Path = HOME) -> None:
    """Write everything that `from_pretrained` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)
