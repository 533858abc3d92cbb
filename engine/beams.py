"""The state of one running beam search: which text wins is known at its end only."""

from typing import Any

import torch

from engine.generation import Generation
from engine.stop_strings import StopStrings
from engine.types import Delta, Event

# A character takes four tokens at most, save for special ones in between.
_TOKENS_A_CHARACTER = 4
_MORE_TOKENS = 16


class BeamGeneration(Generation):
    """Ends beams that hold a stop string, and the whole search when it was cancelled or ran out of time."""

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:  # noqa: ARG002
        self._step([])
        prompt_tokens = self._sequence.prompt_tokens
        return self._verdict(
            self._early is not None or self._has_stop(row) for row in self._tails(input_ids[:, prompt_tokens:])
        )

    def take(self, output: torch.Tensor) -> None:
        """The tokens of the best beams, prompt included, the best first; shorter ones are padded."""
        for choice, row in zip(self._choices, output[:, self._sequence.prompt_tokens :].tolist(), strict=True):
            for token in row:
                choice.push(token)
                if choice.reason is not None:
                    break

    def flush(self) -> list[Event]:
        """The best text in one piece, once it is certain; none where the search broke."""
        for choice in self._choices:
            choice.flush()
        return [Delta(self._sequence.id, self.text, self._choices[0].tokens)] if self.text else []

    def _tails(self, generated: torch.Tensor) -> list[list[int]]:
        """The last tokens of each beam, in which a stop string would lie: any before them has ended its beam."""
        if not self.options.stops:
            return [[]] * len(generated)
        characters = max(map(len, self.options.stops))
        tails: list[list[int]] = generated[:, -(characters * _TOKENS_A_CHARACTER + _MORE_TOKENS) :].tolist()
        return tails

    def _has_stop(self, tokens: list[int]) -> bool:
        if not tokens:
            return False
        visible = [token for token in tokens if token not in self._vocabulary.hidden]
        stops = StopStrings(self.options.stops)
        stops.feed(self._vocabulary.tokenizer.decode(visible, skip_special_tokens=True))
        return stops.met
