import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from engine.detokenize import Detokenizer, TextStream

CHINESE = "你好，世界。"
EMOJI = "🙂 done 👩‍👩‍👧‍👦 café"


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    """One token for every byte, as byte-level BPE tokenizers write what they have no word for."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


@pytest.fixture(scope="module")
def byte_fallback() -> Tokenizer:
    """Words with a mark for their leading space, and bytes for the rest, as SentencePiece tokenizers have them."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for word in ("▁Hello", "▁world", "字"):
        vocabulary[word] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def id_of(tokenizer: Tokenizer, token: str) -> int:
    id = tokenizer.token_to_id(token)
    assert id is not None
    return id


def pieces(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*map(detokenizer.step, tokens), detokenizer.flush()]


@pytest.mark.parametrize("text", [CHINESE, EMOJI])
def test_characters_come_whole_and_add_up_to_the_text(byte_level: Tokenizer, text: str) -> None:
    tokens = byte_level.encode(text).ids
    assert len(tokens) == len(text.encode())
    shown = pieces(byte_level, tokens)
    assert "".join(shown) == text
    assert not any("\ufffd" in piece for piece in shown)
    assert [piece for piece in shown if piece] == list(text)


def test_an_unfinished_character_at_the_end_is_left_out(byte_level: Tokenizer) -> None:
    tokens = byte_level.encode("ok 你好").ids
    assert "".join(pieces(byte_level, tokens[:-1])) == "ok 你"


def test_special_tokens_leave_no_text(byte_level: Tokenizer) -> None:
    end = id_of(byte_level, "<|end|>")
    assert pieces(byte_level, [*byte_level.encode("a").ids, end, *byte_level.encode("b").ids]) == ["a", "", "b", ""]


def test_bytes_that_are_no_utf8_do_not_stop_the_text_after_them(byte_level: Tokenizer) -> None:
    alphabet = byte_level.encode("é").ids
    tokens = [alphabet[0], *byte_level.encode(" fine 字").ids]
    assert "".join(pieces(byte_level, tokens)).endswith(" fine 字")


def test_bytes_of_a_fallback_tokenizer_make_whole_characters(byte_fallback: Tokenizer) -> None:
    hello, character = id_of(byte_fallback, "▁Hello"), list("你好".encode())
    assert [piece for piece in pieces(byte_fallback, [hello, *character]) if piece] == ["Hello", "你", "好"]


def test_a_continued_text_keeps_the_space_before_its_first_word(byte_fallback: Tokenizer) -> None:
    hello, world = id_of(byte_fallback, "▁Hello"), id_of(byte_fallback, "▁world")
    assert Detokenizer(byte_fallback).step(world) == "world"
    assert Detokenizer(byte_fallback, [hello]).step(world) == " world"


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_any_tokens_can_be_detokenized(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    dice = random.Random(0)
    for _ in range(300):
        tokens = [dice.randrange(tokenizer.get_vocab_size()) for _ in range(dice.randrange(30))]
        shown = pieces(tokenizer, tokens)
        if "\ufffd" not in tokenizer.decode(tokens):
            assert "".join(shown) == tokenizer.decode(tokens)


def test_a_stop_string_across_tokens_ends_the_text_before_it(byte_level: Tokenizer) -> None:
    stream = TextStream(byte_level, ["世界"])
    shown = []
    for token in byte_level.encode("你好世界。").ids:
        shown.append(stream.push(token))
        if stream.stopped:
            break
    assert stream.stopped
    assert stream.tokens == 12
    assert stream.text == "你好" == "".join(text for text, _ in shown)
    assert stream.flush() == ("", 0)


def test_tokens_without_text_are_counted_with_the_next_text(byte_level: Tokenizer) -> None:
    stream = TextStream(byte_level, ["!?"])
    reported = [stream.push(token) for token in byte_level.encode("a!字").ids]
    assert reported == [("a", 1), ("", 0), ("", 0), ("", 0), ("!字", 4)]
