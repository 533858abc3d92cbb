"""How `vlmq submit` tells media from the question."""

import os
from pathlib import Path

import pytest

from vlmq.cli_media import Media, read_arguments
from vlmq.errors import ExplainedError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
MP4 = b"\x00\x00\x00\x18ftypisom" + bytes(20)


def test_files_are_told_by_their_content_and_urls_by_their_suffix(tmp_path: Path) -> None:
    image, video = tmp_path / "a.mp4", tmp_path / "b"
    image.write_bytes(PNG)
    video.write_bytes(MP4)
    words = [str(image), "https://a.example/c.WEBM?x=1", "What changed?", str(video), "http://a.example/d.jpeg"]
    media, question = read_arguments(words, images=[], videos=[])
    assert question == "What changed?"
    assert media == [
        Media("image", path=image),
        Media("video", url="https://a.example/c.WEBM?x=1"),
        Media("video", path=video),
        Media("image", url="http://a.example/d.jpeg"),
    ]


def test_options_say_what_a_url_without_suffix_is() -> None:
    url = "https://a.example/latest"
    with pytest.raises(ExplainedError, match="Say --image URL or --video URL"):
        read_arguments([url, "What?"], images=[], videos=[])
    assert read_arguments(["What?"], images=[], videos=[url])[0] == [Media("video", url=url)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cat.jpg", "What?"], "there is no file cat.jpg"),
        (["What?", "Why?"], "takes one question"),
        (["https://a.example/a.png"], "what is the question"),
        ([""], "the question is empty"),
    ],
)
def test_mistakes_are_explained(words: list[str], said: str) -> None:
    with pytest.raises(ExplainedError, match=said):
        read_arguments(words, images=[], videos=[])


def test_a_file_that_is_neither_image_nor_video_is_refused_with_what_it_is(tmp_path: Path) -> None:
    page = tmp_path / "a.png"
    page.write_bytes(b"<!doctype html><html>")
    with pytest.raises(ExplainedError, match="neither an image nor a video that vlmq takes: it is text/html"):
        read_arguments([str(page), "What?"], images=[], videos=[])


def test_a_very_long_question_is_no_file() -> None:
    question = "why " * 5000
    assert read_arguments([question], images=[], videos=[]) == ([], question)


@pytest.mark.parametrize("images", [[], ["http://[bad"]])
def test_a_malformed_url_is_refused(images: list[str]) -> None:
    words = ["What?"] if images else ["http://[bad/x.png", "What?"]
    with pytest.raises(ExplainedError, match="is no URL"):
        read_arguments(words, images=images, videos=[])


def test_a_folder_and_a_pipe_are_said_to_be_what_they_are(tmp_path: Path) -> None:
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)
    with pytest.raises(ExplainedError, match="is a folder"):
        read_arguments(["What?"], images=[str(tmp_path)], videos=[])
    for words, images in ((["What?"], [str(pipe)]), ([str(pipe), "What?"], [])):
        with pytest.raises(ExplainedError, match="is no regular file"):
            read_arguments(words, images=images, videos=[])
