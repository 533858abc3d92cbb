"""The tokens that are no part of any text: special ones, and those that stand for images and the like."""

from typing import Any

from tokenizers import AddedToken


def hidden_tokens(processor: Any) -> frozenset[int]:
    """Their ids.

    Not every checkpoint flags its marks as special, but its processor names them all the same (`image_token`, …).
    """
    tokenizer = processor.tokenizer
    hidden = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    hidden |= set(tokenizer.all_special_ids)
    for name, value in vars(processor).items():
        if name.endswith(("_token", "_tag")) and isinstance(value, str | AddedToken):
            id = tokenizer.backend_tokenizer.token_to_id(str(value))
            if id is not None:
                hidden.add(id)
    return frozenset(hidden)
