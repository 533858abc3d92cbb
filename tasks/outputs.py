"""What a job's row says of several texts, or of the probabilities of one."""

from typing import Any

from engine.types import Finished, Output, TokenLogprob
from tasks.attempt import storable


def stored_outputs(result: Finished, lead: str) -> list[dict[str, Any]] | None:
    """One entry a text, each behind the `lead` of the full text; None where `output_text` says everything."""
    outputs = result.outputs
    if len(outputs) <= 1 and all(output.logprobs is None for output in outputs):
        return None
    return [_stored(output, lead) for output in outputs]


def _stored(output: Output, lead: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "text": storable(lead + output.text),
        "finish_reason": output.finish_reason,
        "completion_tokens": output.completion_tokens,
    }
    if output.logprobs is not None:
        entry["logprobs"] = [
            _logprob(token) | {"top_logprobs": [_logprob(other) for other in token.top]} for token in output.logprobs
        ]
    return entry


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": storable(token.text),
        "token_id": token.token_id,
        "bytes": list(token.bytes),
        "logprob": token.logprob,
    }
