"""Stops a generation in which no token can be chosen, before the device finds out the hard way."""

import torch
from transformers import LogitsProcessor

from vlmq.errors import ErrorCode, VlmqError


class ScoreGuard(LogitsProcessor):
    """Hangs behind the processors of scores, of shape (B, vocabulary).

    Drawing from scores that are all forbidden, or no numbers, ends the accelerator's context, and every job with it.
    """

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:  # noqa: ARG002
        if not bool(torch.isfinite(scores.amax(dim=-1)).all()):
            problem = (
                "The parameters left no token to choose, or the model's scores were no numbers; forbid less, "
                "or set remove_invalid_values"
            )
            raise VlmqError(ErrorCode.INVALID_REQUEST, problem, param="generation")
        return scores
