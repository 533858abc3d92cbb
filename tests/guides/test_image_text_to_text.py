"""Every example of the guide "Image-text-to-text", as a job on the bundled model. docs/coverage.md lists them."""

import pytest
from pytest_httpserver import HTTPServer

from checkpoints.scenes import Scene
from tests.guides.ask import Service, assistant, text, user


@pytest.fixture
def chat(web: HTTPServer, cats: Scene) -> list[dict[str, object]]:
    """The guide's chat: a picture, what the model said of it, and a second picture."""
    return [
        user({"type": "image", "url": web.url_for("/cats.png")}, text("What is this?")),
        assistant(f"a {cats.things[0].name}"),
        user({"type": "image", "url": web.url_for("/bee.jpg")}, text("What color is the object in the second image?")),
    ]


def test_a_chat_with_a_picture_in_an_earlier_turn_is_answered(
    service: Service, chat: list[dict[str, object]], bee: Scene
) -> None:
    answer = service.answer(chat, generation={"max_new_tokens": 500, "do_sample": False})
    assert answer == bee.things[0].color


def test_the_full_text_begins_with_the_chat_and_ends_with_the_answer(
    service: Service, chat: list[dict[str, object]], cats: Scene, bee: Scene
) -> None:
    job = service.run(chat, return_full_text=True)
    full = str(job.output_text)
    assert full.strip().endswith(bee.things[0].color)
    for part in ("What is this?", f"a {cats.things[0].name}", "What color is the object in the second image?"):
        assert part in full
    assert "<|" not in full


def test_a_final_answer_is_continued(service: Service, web: HTTPServer, bee: Scene) -> None:
    thing = bee.things[0]
    picture = {"type": "image", "image": web.url_for("/bee.jpg")}
    answer = service.answer(
        [user(picture, text("What is this?")), assistant(f"a {thing.color}")],
        generation={"max_new_tokens": 20, "do_sample": False},
        return_full_text=False,
    )
    assert answer == thing.shape


def test_two_pictures_in_one_message_are_told_apart(service: Service, web: HTTPServer, cats: Scene, bee: Scene) -> None:
    pictures = [{"type": "image", "url": web.url_for(f"/{name}")} for name in ("cats.png", "bee.jpg")]
    asked = {"How many images are there?": "2"}
    asked |= {
        f"What color is the {scene.things[0].shape} in the {place} image?": scene.things[0].color
        for place, scene in (("first", cats), ("second", bee))
    }
    for question, right in asked.items():
        assert service.answer([user(*pictures, text(question))]) == right
    other_way_round = service.answer(
        [user(*reversed(pictures), text(f"What color is the {bee.things[0].shape} in the first image?"))]
    )
    assert other_way_round == bee.things[0].color


def test_the_answer_keeps_what_was_asked(service: Service, web: HTTPServer) -> None:
    messages = [user({"type": "image", "url": web.url_for("/cats.png")}, text("What is this?"))]
    job = service.run(messages)
    assert job.raw["request"]["messages"] == messages


def test_the_answer_streams_and_its_pieces_add_up(service: Service, chat: list[dict[str, object]], bee: Scene) -> None:
    job_id, events = service.client.submit_and_follow(
        chat, model="tiny-vlm", generation={"max_new_tokens": 100, "do_sample": False}
    )
    seen = list(events)
    pieces = [str(event.data["text"]) for event in seen if event.type == "delta"]
    assert "".join(pieces) == service.client.get(job_id).output_text == seen[-1].data["output_text"]
    assert "".join(pieces).strip() == bee.things[0].color
    assert not any("<|" in piece or "end_of_utterance" in piece for piece in pieces)
