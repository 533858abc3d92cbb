"""Small random checkpoints of every family in docs/models.md, made of the classes that transformers ships.

A file is a group of families: to add one, copy a file, and list it here.
"""

from pathlib import Path

import torch

from tests.engine.families import gemma, idefics, internvl, llava, mistral, mllama, qwen
from tests.engine.families.family import Family, enlarge_weights, tokenizer

FAMILIES: dict[str, Family] = {
    family.name: family
    for group in (idefics, llava, mllama, qwen, internvl, gemma, mistral)
    for family in group.FAMILIES
}


def save_family(name: str, folder: Path) -> None:
    """Write a checkpoint of the family, the same one each time."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    model, processor = family.make(tokenizer(family))
    enlarge_weights(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
