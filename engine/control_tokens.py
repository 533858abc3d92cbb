"""A user's text is text: what reads like one of the model's control tokens is broken up before the template sees it."""

import re
from itertools import accumulate, pairwise
from typing import Any

from tokenizers import AddedToken

from vlmq.errors import ErrorCode, VlmqError

# Invisible, and no tokenizer joins a control token across it.
_BREAK = "\u200b"


class ControlTokens:
    """The strings that a checkpoint's tokenizer or processor gives a meaning of its own.

    Not among them are added tokens that the tokenizer does not call special, such as `<think>`: templates look for
    those in the assistant's messages, and they end no turn and stand for no image.
    """

    def __init__(self, processor: Any) -> None:
        tokens = {token.content for token in processor.tokenizer.added_tokens_decoder.values() if token.special}
        tokens |= {
            str(value)
            for name, value in vars(processor).items()
            if name.endswith(("_token", "_tag")) and isinstance(value, str | AddedToken)
        }
        visible = {token for token in tokens if token.strip()}
        self._unbreakable = {token for token in visible if len(token) == 1}
        # A lookahead finds those that overlap as well.
        self._pattern = re.compile(f"(?={'|'.join(map(re.escape, visible - self._unbreakable)) or '(?!)'})")

    def break_up(self, texts: list[str], params: list[str]) -> list[str]:
        """Texts that the template may join without anything between them, with no control token left in or across them.

        A zero-width space goes behind the first character of each. `params` name the texts in errors.

        Raises:
            VlmqError: INVALID_REQUEST for a control token of one character, which cannot be broken up.
        """
        for text, param in zip(texts, params, strict=True):
            if reserved := self._unbreakable.intersection(text):
                problem = f"The text has the character {min(reserved)!r}, which this model reserves; leave it out"
                raise VlmqError(ErrorCode.INVALID_REQUEST, problem, param=param)
        joined = "".join(texts)
        breaks = [match.start() + 1 for match in self._pattern.finditer(joined)]
        if not breaks:
            return texts
        borders = [0, *accumulate(map(len, texts))]
        broken = []
        for start, end in pairwise(borders):
            cuts = [start, *(place for place in breaks if start < place <= end), end]
            broken.append(_BREAK.join(joined[left:right] for left, right in pairwise(cuts)))
        return broken

    def break_up_all(self, value: Any, param: str) -> Any:
        """The same for every string inside of a JSON value."""
        if isinstance(value, str):
            return self.break_up([value], [param])[0]
        if isinstance(value, dict):
            return {key: self.break_up_all(item, f"{param}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [self.break_up_all(item, f"{param}.{index}") for index, item in enumerate(value)]
        return value
