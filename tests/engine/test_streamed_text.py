"""What a reader of the stream sees, whatever tokens the model says, with tokenizers of four kinds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from engine.checkpoint import Checkpoint, load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.types import CheckpointSettings, Delta, Finished, GenerationParameters, Picture, PromptRequest
from tests.engine.families.llava import llava
from tests.engine.listening import ask, run, text_of
from vlmq.config import BUNDLED_CHECKPOINT

TEXT = "Grün 字 🙂 e\u0301 👩‍👩‍👧‍👦 done!"
MARKS = ("<image>", "<end_of_utterance>", "<fake_token_around_image>")


def wrapped(bare: Tokenizer, special: tuple[str, ...] = MARKS) -> Any:
    make: Any = hf.PreTrainedTokenizerFast
    made = make(tokenizer_object=bare, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", bos_token="<s>")
    made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def byte_level(special: tuple[str, ...] = MARKS) -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    return wrapped(bare, special)


def unflagged() -> Any:
    """An image's mark is a token like others, save that the processor names it."""
    made = byte_level(MARKS[1:])
    made.add_tokens([AddedToken(MARKS[0], normalized=False, special=False)])
    return made


def byte_fallback() -> Any:
    """As SentencePiece's: a mark for a space, some letters of its own, and bytes for the rest."""
    vocabulary = {"<unk>": 0} | {f"<0x{byte:02X}>": byte + 1 for byte in range(256)}
    for letter in "▁abcdefghijklmnopqrstuvwxyzG!":
        vocabulary[letter] = len(vocabulary)
    bare = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    bare.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    bare.decoder = decoders.Sequence(steps)
    return wrapped(bare)


def bundled() -> Any:
    made: Any = hf.AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
    made.add_special_tokens({"additional_special_tokens": list(MARKS)})
    return made


KINDS: dict[str, Callable[[], Any]] = {
    "bundled": bundled,
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "unflagged": unflagged,
}
Loaded = tuple[GenerateEngine, Checkpoint]


@pytest.fixture(scope="module", params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model, processor = llava(KINDS[request.param]())
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    checkpoint = load_checkpoint(CheckpointSettings(str(folder), device="cpu"))
    engine = GenerateEngine(checkpoint)
    yield engine, checkpoint
    engine.close()


@contextmanager
def saying(checkpoint: Checkpoint, tokens: list[int]) -> Iterator[None]:
    """Let the model be sure of these tokens, one after the other."""
    steps = iter(tokens)

    def be_sure(_model: Any, _args: Any, output: Any) -> Any:
        output.logits[:, -1] = -50.0
        output.logits[:, -1, next(steps)] = 50.0
        return output

    handle = checkpoint.model.register_forward_hook(be_sure)
    try:
        yield
    finally:
        handle.remove()


def tokens_of(checkpoint: Checkpoint, text: str) -> list[int]:
    ids: list[int] = checkpoint.processor.tokenizer.encode(text, add_special_tokens=False)
    return ids


def say(loaded: Loaded, tokens: list[int], **named: Any) -> tuple[list[str], Finished]:
    """The deltas' texts and the end."""
    engine, checkpoint = loaded
    parameters = GenerationParameters(max_new_tokens=len(tokens), do_sample=False, **named)
    with saying(checkpoint, tokens):
        events = run(engine, ask("hello"), parameters)
    end = events[-1]
    assert isinstance(end, Finished), end
    assert text_of(events, "only") == end.text
    deltas = [event for event in events if isinstance(event, Delta)]
    assert all(delta.text for delta in deltas)
    assert sum(delta.tokens for delta in deltas) <= end.completion_tokens
    return [delta.text for delta in deltas], end


def test_characters_come_whole_and_add_up_to_the_text(loaded: Loaded) -> None:
    shown, end = say(loaded, tokens_of(loaded[1], TEXT))
    assert end.text == TEXT
    assert not any("\ufffd" in piece for piece in shown)
    assert len(shown) > 10


def test_marks_never_show_wherever_they_are_said(loaded: Loaded) -> None:
    _, checkpoint = loaded
    special = checkpoint.processor.tokenizer.all_special_ids
    marks = [checkpoint.processor.tokenizer.convert_tokens_to_ids(mark) for mark in MARKS]
    ends = checkpoint.model.generation_config.eos_token_id
    said = [token for token in (*special, *marks) if token != ends]
    tokens = [*said, *tokens_of(checkpoint, "ab"), *said, *tokens_of(checkpoint, "cd"), ends]
    shown, end = say(loaded, tokens)
    assert "".join(end.text.split()) == "abcd"
    assert "<" not in "".join(shown)
    assert (end.finish_reason, end.completion_tokens) == ("stop", len(tokens))


def test_the_prompt_in_front_of_a_full_text_shows_no_marks_either(loaded: Loaded, pictures: list[Picture]) -> None:
    engine, _ = loaded
    content = [{"type": "image"}, {"type": "text", "text": "hello"}]
    prompt = PromptRequest([{"role": "user", "content": content}], pictures[:1], return_full_text=True)
    lead = engine.prepare("any", prompt, GenerationParameters()).lead
    assert "hello" in lead
    assert not any(mark in lead for mark in MARKS)


def test_an_end_mark_that_is_not_flagged_as_special_does_not_show_either(loaded: Loaded) -> None:
    _, checkpoint = loaded
    exclamation = tokens_of(checkpoint, "a!")[-1]
    shown, end = say(loaded, [*tokens_of(checkpoint, "abc"), exclamation, exclamation], eos_token_id=(exclamation,))
    assert (end.text, end.finish_reason) == ("abc", "stop")
    assert "".join(shown) == "abc"


def test_a_character_that_the_length_cuts_is_left_out(loaded: Loaded) -> None:
    _, checkpoint = loaded
    tokens = tokens_of(checkpoint, "ok 🙂")
    shown, end = say(loaded, tokens[:-1])
    assert end.text.strip() == "ok"
    assert not any("\ufffd" in piece for piece in shown)


@pytest.mark.parametrize(
    ("stop", "left"), [("字", "Grün "), (" 🙂 e", "Grün 字"), ("👧", "Grün 字 🙂 e\u0301 👩‍👩‍"), ("nothing", TEXT)]
)
def test_a_stop_string_of_any_bytes_ends_the_text_before_it(stop: str, left: str, loaded: Loaded) -> None:
    shown, end = say(loaded, tokens_of(loaded[1], TEXT), stop=(stop,))
    assert end.text == left == "".join(shown)
    assert end.finish_reason == ("length" if left == TEXT else "stop")


def test_a_stop_string_across_a_mark_is_met(loaded: Loaded) -> None:
    _, checkpoint = loaded
    mark = checkpoint.processor.tokenizer.convert_tokens_to_ids("<end_of_utterance>")
    tokens = tokens_of(checkpoint, "abcd")
    letters = [token for token in tokens if checkpoint.tokenizer.decode([token]).strip()]
    _, end = say(loaded, [*letters[:-1], mark, letters[-1], *letters], stop=("cd",))
    assert (end.text.strip(), end.finish_reason) == ("ab", "stop")


def test_beams_keep_to_the_same_rules(loaded: Loaded) -> None:
    _, checkpoint = loaded
    mark = checkpoint.processor.tokenizer.convert_tokens_to_ids("<end_of_utterance>")
    tokens = [mark, *tokens_of(checkpoint, TEXT), checkpoint.model.generation_config.eos_token_id]
    shown, end = say(loaded, [*tokens, *tokens], num_beams=2)
    assert [end.text] == shown
    assert end.text.startswith(TEXT)
    assert "\ufffd" not in end.text


def test_whatever_a_model_that_learned_nothing_says_the_deltas_add_up(loaded: Loaded) -> None:
    engine, checkpoint = loaded
    special = [token for token in checkpoint.processor.tokenizer.all_special_tokens if len(token) > 1]
    for seed in range(12):
        parameters = GenerationParameters(max_new_tokens=40, do_sample=True, temperature=2.0, top_k=0, seed=seed)
        events = run(engine, ask("hello"), parameters)
        end = events[-1]
        assert isinstance(end, Finished)
        assert text_of(events, "only") == end.text
        assert not any(token in end.text for token in special)


def test_the_bytes_of_log_probabilities_make_the_text(loaded: Loaded) -> None:
    _, end = say(loaded, tokens_of(loaded[1], TEXT), logprobs=True, top_logprobs=2)
    (output,) = end.outputs
    assert output.logprobs is not None
    assert b"".join(entry.bytes for entry in output.logprobs).decode().lstrip() == TEXT
    assert all(entry.top[0].token_id == entry.token_id for entry in output.logprobs)
