"""The `generation` of a job: how its answer is generated."""

from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.generation_agreement import disagreements
from api.schemas.generation_names import ALIASES, NEUTRAL, REFUSED
from api.schemas.strict import Strict
from vlmq.generation_limits import MAX_SEED, MAX_SEQUENCES, MAX_TOP_LOGPROBS, MIN_PENALTY, MIN_TEMPERATURE

MAX_TOKEN = 2**31 - 1

Item = TypeVar("Item")
_StopString = Annotated[str, Field(min_length=1, max_length=256)]
_Token = Annotated[int, Field(ge=0, le=MAX_TOKEN)]
_Tokens = Annotated[list[_Token], Field(min_length=1, max_length=64)]
_ManyTokens = Annotated[list[_Token], Field(min_length=1, max_length=4096)]
_Bias = Annotated[float, Field(ge=-1000, le=1000)]
# JSON has lists only.
_Biased = Annotated[tuple[_Tokens, _Bias], Field(strict=False)]
_Decay = Annotated[
    tuple[Annotated[int, Field(ge=0, le=MAX_TOKEN)], Annotated[float, Field(gt=0, le=2)]], Field(strict=False)
]
_Share = Annotated[float, Field(gt=0, le=1)]
_Cutoff = Annotated[float, Field(ge=0, lt=1)]
_Penalty = Annotated[float, Field(ge=MIN_PENALTY, le=10)]
_Ngram = Annotated[int, Field(ge=0, le=1024)]
_Count = Annotated[int, Field(ge=1, le=MAX_SEQUENCES)]


def _stop_kind(value: Any) -> str | None:
    return "<one>" if isinstance(value, str) else "<several>" if isinstance(value, list) else None


def _token_kind(value: Any) -> str | None:
    one = isinstance(value, int) and not isinstance(value, bool)
    return "<one>" if one else "<several>" if isinstance(value, list) else None


def _early_kind(value: Any) -> str | None:
    return "<flag>" if isinstance(value, bool) else "<never>" if value == "never" else None


_Stop = Annotated[
    Annotated[_StopString, Tag("<one>")] | Annotated[list[_StopString], Field(max_length=16), Tag("<several>")],
    Discriminator(_stop_kind, custom_error_type="text_or_list", custom_error_message="Takes text, or a list of texts"),
]
_EndTokens = Annotated[
    Annotated[_Token, Tag("<one>")] | Annotated[_Tokens, Tag("<several>")],
    Discriminator(
        _token_kind, custom_error_type="token_or_list", custom_error_message="Takes a token's id, or a list of them"
    ),
]
_Early = Annotated[
    Annotated[bool, Tag("<flag>")] | Annotated[Literal["never"], Tag("<never>")],
    Discriminator(_early_kind, custom_error_type="early", custom_error_message='Takes true, false or "never"'),
]


class Watermark(Strict):
    """A mark that a detector finds in the text, in transformers' words: some tokens come oftener than by chance."""

    greenlist_ratio: float = Field(0.25, gt=0, lt=1)
    bias: float = Field(2.0, ge=-100, le=100)
    hashing_key: int = Field(15485863, ge=1, le=MAX_TOKEN)
    seeding_scheme: Literal["lefthash", "selfhash"] = "lefthash"
    context_width: int = Field(1, ge=1, le=16)


class Generation(Strict):
    """How the answer is generated; what is left out is as the checkpoint says (docs/generation.md)."""

    refused: ClassVar[dict[str, str]] = REFUSED

    max_new_tokens: int | None = Field(None, ge=1)
    min_new_tokens: int | None = Field(None, ge=0)
    stop: _Stop | None = Field(None, description="generation ends before any of these")
    eos_token_id: _EndTokens | None = Field(None, description="end tokens, in place of the checkpoint's")
    forced_eos_token_id: _EndTokens | None = Field(None, description="the last token where max_new_tokens is reached")
    exponential_decay_length_penalty: _Decay | None = Field(None, description="[after how many tokens, factor]")

    do_sample: bool | None = None
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    temperature: float | None = Field(
        None, ge=0, le=2, description=f"0 takes the likeliest token each time; otherwise at least {MIN_TEMPERATURE}"
    )
    top_p: _Share | None = None
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    min_p: float | None = Field(None, ge=0, le=1)
    top_h: _Share | None = None
    typical_p: _Share | None = None
    epsilon_cutoff: _Cutoff | None = None
    eta_cutoff: _Cutoff | None = None

    repetition_penalty: _Penalty | None = None
    encoder_repetition_penalty: _Penalty | None = Field(None, description="above 1 keeps to the prompt's tokens")
    no_repeat_ngram_size: _Ngram | None = None
    encoder_no_repeat_ngram_size: _Ngram | None = Field(None, description="none of the prompt's is repeated")
    bad_words: list[_StopString] | None = Field(None, min_length=1, max_length=256, description="texts never written")
    bad_words_ids: list[_Tokens] | None = Field(None, min_length=1, max_length=256)
    sequence_bias: list[_Biased] | None = Field(
        None, min_length=1, max_length=1024, description="[[tokens, what is added to the score of the last], …]"
    )
    suppress_tokens: _ManyTokens | None = None
    begin_suppress_tokens: _ManyTokens | None = None
    watermarking_config: Watermark | None = None
    renormalize_logits: bool | None = None
    remove_invalid_values: bool | None = None

    num_beams: _Count | None = Field(None, description="1 unless named")
    length_penalty: float | None = Field(None, ge=-10, le=10)
    early_stopping: _Early | None = None
    num_return_sequences: _Count | None = Field(None, description="how many texts")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    use_cache: bool | None = None

    max_tokens: int | None = Field(None, ge=1, description="the same as max_new_tokens")
    max_completion_tokens: int | None = Field(None, ge=1, description="the same as max_new_tokens")
    n: _Count | None = Field(None, description="the same as num_return_sequences")
    stop_strings: _Stop | None = Field(None, description="the same as stop")
    logit_bias: (
        dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = Field(None, max_length=1024, description="token ids and what is added to their scores")

    @model_validator(mode="before")
    @classmethod
    def _leave_out_neutral_values(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if not (name in NEUTRAL and value == NEUTRAL[name])}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        sent = self._names_sent()
        for field, problem in disagreements(self.stored()):
            raise PydanticCustomError("range", "{problem}", {"field": sent[field], "problem": problem})
        biased = [tuple(tokens) for tokens, _ in self.stored().get("sequence_bias", ())]
        if len(set(biased)) < len(biased):
            problem = "Must not name the same tokens twice"
            raise PydanticCustomError("range", "{problem}", {"field": sent["sequence_bias"], "problem": problem})
        return self

    def _names_sent(self) -> dict[str, str]:
        """Under which name each field was sent.

        Raises:
            PydanticCustomError: one thing was sent under two names.
        """
        sent: dict[str, str] = {}
        for name in type(self).model_fields:
            if getattr(self, name) is None:
                continue
            meant = ALIASES.get(name, name)
            if meant in sent:
                context = {"field": name, "other": sent[meant]}
                raise PydanticCustomError("twice", "Means the same as {other}; leave one of them out", context)
            sent[meant] = name
        return sent

    def name_sent(self, field: str) -> str:
        """The name under which a field was sent."""
        return self._names_sent().get(field, field)

    def stored(self) -> dict[str, Any]:
        """What the worker reads: only what was named, by transformers' names, and lists where one or several may be."""
        values = self.model_dump(exclude_none=True)
        if "logit_bias" in values:
            values["logit_bias"] = [([int(token)], bias) for token, bias in values["logit_bias"].items()]
        values = {ALIASES.get(name, name): value for name, value in values.items()}
        for name in ("stop", "eos_token_id", "forced_eos_token_id"):
            if name in values and not isinstance(values[name], list):
                values[name] = [values[name]]
        return values
