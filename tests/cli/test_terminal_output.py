"""What reaches the terminal of text that others wrote."""

import json
import sys

import pytest
from pytest_httpserver import HTTPServer

from vlmq.cli_follow import follow
from vlmq.cli_tables import print_job, print_jobs
from vlmq.cli_terminal import harmless, print_json
from vlmq.client import Client, Job

HOSTILE = "a\x1b]0;owned\x07b\x9b31mc\td\r"
PLAIN = "a�]0;owned�b�31mc"


def test_controls_are_replaced_and_lines_and_tabs_kept() -> None:
    assert harmless(HOSTILE) == f"{PLAIN}\td�"
    assert harmless("zwei\n\tZeilen, 猫") == "zwei\n\tZeilen, 猫"


@pytest.mark.parametrize("control", [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029])
def test_text_cannot_be_turned_around(control: int, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = f"exe{chr(control)}gnp.cat"
    assert harmless(hostile) == "exe�gnp.cat"
    print_json({"text": hostile})
    printed = capsys.readouterr().out
    assert chr(control) not in printed
    assert json.loads(printed) == {"text": hostile}


def test_marks_that_scripts_from_right_to_left_need_are_kept() -> None:
    text = "\u05e9\u05dc\u05d5\u05dd\u200f! \u0645\u0631\u062d\u0628\u0627\u061c \u200e(a)"
    assert harmless(text) == text


def test_json_keeps_every_character_but_escapes_controls(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"text": HOSTILE, "cat": "猫"})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"text": HOSTILE, "cat": "猫"}
    assert "猫" in printed
    assert not {"\x1b", "\x07", "\x9b"} & set(printed)


def test_tables_never_carry_controls(capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(
        {
            "id": "job_1",
            "status": "failed",
            "model": HOSTILE,
            "created_at": "2026-01-01T00:00:00Z",
            "output_text": HOSTILE,
            "metadata": {HOSTILE: HOSTILE},
            "error": {"message": HOSTILE, "code": "x"},
        }
    )
    print_jobs([job], as_json=False)
    print_job(job, [{"event": HOSTILE, "status": "sent", "url": HOSTILE, "tries": 1}], as_json=False)
    printed = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b", "\r"} & set(printed)
    assert PLAIN in printed


@pytest.mark.parametrize("is_terminal", [True, False])
def test_an_answer_is_made_harmless_for_a_terminal_alone(
    httpserver: HTTPServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
) -> None:
    events = (("delta", {"text": HOSTILE}), ("status", {"status": "completed"}))
    stream = "".join(f"id: 1-{n}\nevent: {kind}\ndata: {json.dumps(data)}\n\n" for n, (kind, data) in enumerate(events))
    httpserver.expect_request("/v1/jobs/job_1/events").respond_with_data(stream, content_type="text/event-stream")
    job = {"id": "job_1", "status": "completed", "output_text": HOSTILE}
    httpserver.expect_request("/v1/jobs/job_1").respond_with_json(job)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    with Client(httpserver.url_for("")) as client:
        assert follow(client, "job_1", client.events("job_1"), as_json=False) == 0
    assert capsys.readouterr().out == (harmless(HOSTILE) if is_terminal else HOSTILE) + "\n"


def test_a_job_tells_its_times_in_the_order_in_which_they_pass(capsys: pytest.CaptureFixture[str]) -> None:
    timings = {"total": 0.5, "generation": 0.4567, "media": 0.0000131, "queued": 0.02}
    print_job(Job({"id": "job_1", "status": "completed", "timings": timings}), [], as_json=False)
    told = " ".join(capsys.readouterr().out.split())
    assert told.endswith("timings queued 0.020 s, media 0.000 s, generation 0.457 s, total 0.500 s")
