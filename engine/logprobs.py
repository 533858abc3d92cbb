"""How likely the model held each token to be, before penalties and temperature."""

from typing import Any

import torch

from engine.choice import Vocabulary
from engine.token_bytes import TokenBytes
from engine.types import TokenLogprob

# JSON knows neither infinity nor what is no number, which a model in float16 may come to.
_LEAST = -9999.0


class LogprobReader:
    """Reads a step's probabilities off the model's output, in which it is a forward hook while `generate()` runs."""

    def __init__(self, vocabulary: Vocabulary, top: int) -> None:
        self._bytes = TokenBytes(vocabulary)
        self._top = top
        self._logits: torch.Tensor | None = None

    def __call__(self, _model: Any, _args: Any, output: Any) -> None:
        """Keep the scores (B, vocabulary) of the last place; the rest of a prompt's would take much memory."""
        self._logits = output.logits[:, -1].to(torch.float32, copy=True)

    def read(self, tokens: list[int]) -> list[TokenLogprob]:
        """One entry for the token that each row chose."""
        if self._logits is None:
            raise RuntimeError("the model was not called before a token came")
        logprobs = torch.log_softmax(self._logits, dim=-1)
        self._logits = None
        chosen = logprobs.gather(1, torch.tensor(tokens, device=logprobs.device)[:, None])[:, 0].tolist()
        if not self._top:
            return [self._entry(token, value) for token, value in zip(tokens, chosen, strict=True)]
        values, ids = logprobs.topk(min(self._top, logprobs.shape[1]))
        return [
            self._entry(token, value, tuple(map(self._entry, row_ids, row_values)))
            for token, value, row_ids, row_values in zip(tokens, chosen, ids.tolist(), values.tolist(), strict=True)
        ]

    def _entry(self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        data = self._bytes.of(token)
        return TokenLogprob(token, data.decode(errors="replace"), data, logprob if logprob > _LEAST else _LEAST, top)
