import pytest

from engine.parameters import check_parameters
from engine.types import GenerationParameters
from vlmq.errors import ErrorCode, VlmqError


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-38, 0.009, -1.0])
def test_a_temperature_too_small_to_draw_with_is_refused(temperature: float) -> None:
    with pytest.raises(VlmqError) as refusal:
        check_parameters(GenerationParameters(temperature=temperature))
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.INVALID_REQUEST, "generation.temperature")
    assert "takes 0, or a number of at least 0.01" in refusal.value.message


def test_a_repetition_penalty_too_small_to_draw_with_is_refused() -> None:
    with pytest.raises(VlmqError) as refusal:
        check_parameters(GenerationParameters(repetition_penalty=1e-40, do_sample=True))
    assert refusal.value.param == "generation.repetition_penalty"


def test_the_least_temperature_and_penalty_are_taken() -> None:
    checked = check_parameters(GenerationParameters(temperature=0.01, repetition_penalty=0.01))
    assert checked.do_sample is True
