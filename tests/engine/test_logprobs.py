"""Log probabilities of scores that are at the edge of numbers, or beyond."""

import json
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer

from engine.choice import Vocabulary
from engine.logprobs import LogprobReader
from vlmq.config import BUNDLED_CHECKPOINT


@pytest.mark.parametrize("worst", [float("nan"), float("-inf"), float("inf")])
def test_whatever_the_scores_are_json_can_hold_their_log_probabilities(worst: float) -> None:
    tokenizer = Tokenizer.from_file(str(BUNDLED_CHECKPOINT / "tokenizer.json"))
    reader = LogprobReader(Vocabulary(tokenizer, frozenset()), top=3)
    reader(None, None, SimpleNamespace(logits=torch.tensor([[[0.0, worst, worst]]])))
    (entry,) = reader.read([1])
    json.dumps([entry.logprob, *(other.logprob for other in entry.top)], allow_nan=False)
