"""Values that the command line refuses before anything is asked or started, and output that goes nowhere."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlmq.cli import app
from vlmq.cli_values import named


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "--webhook", "", "What?"],
        ["submit", "--model", "", "What?"],
        ["submit", "--image", "", "What?"],
        ["submit", "--temperature", "inf", "What?"],
        ["submit", "--temperature", "nan", "What?"],
        ["submit", "--fps", "inf", "What?"],
        ["submit", "--set", "top_p", "What?"],
        ["submit", "--set", "=1", "What?"],
        ["submit", "--set", "top_p=1", "--set", "top_p=0.5", "What?"],
        ["serve", "--data-dir", ""],
        ["serve", "--model", ""],
        ["serve", "--host", ""],
        ["doctor", "--data-dir", ""],
        ["webhook-secret", "--tenant", ""],
        ["db", "upgrade", ""],
    ],
)
def test_a_value_that_nothing_could_use_is_a_mistake_of_usage(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "Invalid value" in done.output


def test_parameters_that_are_set_are_json_or_else_text() -> None:
    given = ["top_p=0.9", "do_sample=true", "stop=a=b", 'bad_words=["x"]', "early_stopping=never"]
    assert named(given) == {
        "top_p": 0.9,
        "do_sample": True,
        "stop": "a=b",
        "bad_words": ["x"],
        "early_stopping": "never",
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--fps", "0"], "a number above 0"), (["--fps", "1"], "for videos"), (["--num-frames", "2"], "for videos")],
)
def test_options_for_videos_are_not_ignored(options: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["submit", *options, "What?"])
    assert said in str(done.exception)


def test_output_that_cannot_be_written_is_told_in_one_line() -> None:
    command = [sys.executable, "-m", "vlmq", "--version"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "the output cannot be written: No space left on device\n")
