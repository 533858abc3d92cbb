"""Every family in docs/models.md generates, token for token, what plain transformers does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import Checkpoint, load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.types import (
    CheckpointSettings,
    Finished,
    GenerationParameters,
    Picture,
    PromptRequest,
    Started,
    VideoClip,
)
from tests.engine.families import FAMILIES, save_family
from tests.engine.families.reference import CHATS, count, plain_inputs, plain_tokens
from tests.engine.listening import end_of, read_ends, run, text_of
from vlmq.errors import ErrorCode, VlmqError

LENGTH = 12
PARAMETERS = GenerationParameters(max_new_tokens=LENGTH, do_sample=False)
CELLS = [(name, case) for name, family in FAMILIES.items() for case in family.cases]
GAPS = [(name, case) for name, family in FAMILIES.items() for case in CHATS if case not in family.cases]


class Loaded:
    """A family's checkpoint with an engine around it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        save_family(name, folder)
        self.checkpoint: Checkpoint = load_checkpoint(CheckpointSettings(str(folder), device="cpu"))
        self.engine = GenerateEngine(self.checkpoint)


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    name: str = request.param
    made = Loaded(name, tmp_path_factory.mktemp(name))
    yield made
    made.engine.close()


@contextmanager
def scores_of(model: Any) -> Iterator[list[torch.Tensor]]:
    """The scores of each step's last token, read off the model itself; greedy decoding takes the highest."""
    seen: list[torch.Tensor] = []
    hook = model.register_forward_hook(lambda _m, _i, output: seen.append(output.logits[0, -1].detach().clone()))
    try:
        yield seen
    finally:
        hook.remove()


def placeholders(config: Any, inputs: Any) -> int:
    """How many tokens of the prompt the model itself puts pixels in the place of."""
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    marks = [mark for name in names if (mark := getattr(config, name, None)) is not None]
    return int(torch.isin(inputs["input_ids"], torch.tensor(marks)).sum())


@pytest.mark.parametrize(("loaded", "case"), CELLS, indirect=["loaded"])
def test_tokens_are_those_of_plain_transformers(
    loaded: Loaded, case: Any, pictures: list[Picture], clip: VideoClip
) -> None:
    chat = CHATS[case]
    images, clips = pictures[: count(chat, "image")], [clip] * count(chat, "video")
    inputs = plain_inputs(loaded.folder, chat, images, clips)
    with scores_of(loaded.checkpoint.model) as plain:
        expected = plain_tokens(loaded.checkpoint.model, inputs, LENGTH)
    with scores_of(loaded.checkpoint.model) as seen:
        events = run(loaded.engine, PromptRequest(chat, images, clips), PARAMETERS)

    end, started = end_of(events, "only"), events[0]
    assert [int(scores.argmax()) for scores in seen] == expected
    # A small model may say the same of a picture that is wrong by a little, but never with the same scores.
    torch.testing.assert_close(torch.stack(seen), torch.stack(plain))
    assert end.completion_tokens == len(expected)
    assert text_of(events, "only") == end.text
    assert end.text == loaded.checkpoint.tokenizer.decode(expected, skip_special_tokens=True).rstrip("\ufffd")
    assert isinstance(started, Started)
    assert started.prompt_tokens == inputs["input_ids"].shape[1]
    assert (started.image_tokens > 0, started.video_tokens > 0) == (bool(images), bool(clips))
    # Some families count the marks around and between the rows of an image as well.
    seen_as_pixels = placeholders(loaded.checkpoint.model.config, inputs)
    assert seen_as_pixels <= started.image_tokens + started.video_tokens < started.prompt_tokens


@pytest.mark.parametrize(
    ("loaded", "case"), [cell for cell in CELLS if cell[1] in ("image", "images", "video")], indirect=["loaded"]
)
def test_other_pixels_give_other_tokens(loaded: Loaded, case: Any, pictures: list[Picture], clip: VideoClip) -> None:
    """Otherwise the equality above would say nothing about what a family sees."""
    chat = CHATS[case]
    images, clips = pictures[: count(chat, "image")], [clip] * count(chat, "video")
    answers = []
    for seen_images, frames in ((images, clip.frames), ([255 - image for image in images], 255 - clip.frames)):
        changed = [
            VideoClip(frames, it.timestamps, it.frame_indices, it.fps, it.total_frames, it.duration) for it in clips
        ]
        with scores_of(loaded.checkpoint.model) as seen:
            run(loaded.engine, PromptRequest(chat, list(seen_images), changed), PARAMETERS)
        answers.append([int(scores.argmax()) for scores in seen])
    assert answers[0] != answers[1]


@pytest.mark.parametrize(("loaded", "case"), GAPS, indirect=["loaded"])
def test_what_a_family_does_not_take_is_refused(
    loaded: Loaded, case: Any, pictures: list[Picture], clip: VideoClip
) -> None:
    chat = CHATS[case]
    images, clips = pictures[: count(chat, "image")], [clip] * count(chat, "video")
    with pytest.raises(VlmqError) as caught:
        loaded.engine.prepare("any", PromptRequest(chat, images, clips), PARAMETERS)
    assert caught.value.code in (ErrorCode.UNSUPPORTED_MODALITY, ErrorCode.TEMPLATE_ERROR)
    assert (caught.value.param or "").startswith("messages")


@pytest.mark.parametrize(
    "loaded", [name for name, family in FAMILIES.items() if "image and video" in family.cases], indirect=True
)
def test_tokens_of_images_and_of_videos_are_counted_apart(
    loaded: Loaded, pictures: list[Picture], clip: VideoClip
) -> None:
    def counts(case: Any, images: list[Picture], clips: list[VideoClip]) -> tuple[int, int]:
        sequence = loaded.engine.prepare("any", PromptRequest(CHATS[case], images, clips), PARAMETERS)
        return sequence.image_tokens, sequence.video_tokens

    (image_tokens, _), (_, video_tokens) = counts("image", pictures[:1], []), counts("video", [], [clip])
    assert counts("image and video", pictures[:1], [clip]) == (image_tokens, video_tokens)


@pytest.mark.parametrize("loaded", FAMILIES, indirect=True)
def test_sequences_run_one_at_a_time_each_with_its_own_images(loaded: Loaded, pictures: list[Picture]) -> None:
    chats = [PromptRequest(CHATS["image"], [picture]) for picture in pictures]
    alone = [end_of(run(loaded.engine, chat, PARAMETERS), "only") for chat in chats]
    for index, chat in enumerate(chats):
        loaded.engine.submit(loaded.engine.prepare(str(index), chat, PARAMETERS))
    events = read_ends(loaded.engine, len(chats))
    assert [end_of(events, str(index)).text for index in range(len(chats))] == [end.text for end in alone]
    borders = [event.id for event in events if isinstance(event, Started | Finished)]
    assert borders == [str(index) for index in range(len(chats)) for _ in range(2)]


@pytest.mark.parametrize("loaded", FAMILIES, indirect=True)
def test_a_placeholder_in_a_users_text_is_text(loaded: Loaded, pictures: list[Picture]) -> None:
    processor = loaded.checkpoint.processor
    words = {"type": "text", "text": f"Is {processor.image_token} a tag?"}
    chat = [{"role": "user", "content": [{"type": "image"}, words]}]
    plain = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it a tag?"}]}]

    def image_tokens(messages: list[dict[str, Any]]) -> int:
        return loaded.engine.prepare("any", PromptRequest(messages, pictures[:1]), PARAMETERS).image_tokens

    assert image_tokens(chat) == image_tokens(plain)
