"""`vlmq` as a process: what it loads, what it says, how it exits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from vlmq.config import environment_with
from vlmq.data_dir import DataDir
from vlmq.free_port import free_port

MODEL = {"id": "m", "state": "ready", "checkpoint": "c"}
HEAVY = ("torch", "transformers", "flask", "sqlalchemy", "celery", "redis", "requests", "alembic", "numpy")


def run(*arguments: str, url: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    values = environment | ({"VLMQ_URL": url} if url else {})
    command = [sys.executable, "-m", "vlmq", *arguments]
    return subprocess.run(
        command, env=environment_with(values), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["submit", "--help"], ["serve", "--help"], ["--version"]])
def test_a_help_text_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['vlmq', *{arguments!r}]\n"
        "from vlmq.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_a_client_command_never_loads_the_service_or_torch() -> None:
    code = (
        "import sys, vlmq.cli_follow, vlmq.cli_media, vlmq.cli_tables, vlmq.client\n"
        "print([name for name in ('torch', 'flask', 'sqlalchemy', 'celery', 'redis') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_service_one_line_says_how_to_start_it() -> None:
    url = f"http://127.0.0.1:{free_port('127.0.0.1', 0)}"
    done = run("submit", "hello", url=url)
    assert done.returncode == 1
    assert done.stderr == f"nothing answers at {url}; start it with `vlmq serve`\n"


def test_a_setting_that_cannot_be_used_is_named() -> None:
    done = run("db", "current", VLMQ_PORT="many")
    assert done.returncode == 1
    assert done.stderr.startswith("VLMQ_PORT: ")
    assert "Traceback" not in done.stderr


def test_a_failed_job_gives_its_error_in_one_line_and_exit_status_1(httpserver: HTTPServer) -> None:
    error = {"message": "The image could not be decoded.", "code": "image_invalid", "type": "x", "param": None}
    job = {"id": "job_1", "status": "failed", "model": "m", "output_text": "", "error": error}
    stream = f"id: 1-1\nevent: status\ndata: {json.dumps({'status': 'failed', 'attempt': 1, 'error': error})}\n\n"
    httpserver.expect_request("/v1/models").respond_with_json({"data": [MODEL]})
    httpserver.expect_request("/v1/jobs", method="POST").respond_with_data(
        stream, content_type="text/event-stream", headers={"Location": "/v1/jobs/job_1"}
    )
    httpserver.expect_request("/v1/jobs/job_1").respond_with_json(job)
    done = run("submit", "hello", url=httpserver.url_for(""))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "job_1 failed: The image could not be decoded. (image_invalid)\n"


def test_a_refusal_names_the_field(httpserver: HTTPServer) -> None:
    error = {"message": "No model x.", "code": "model_not_found", "type": "x", "param": "model"}
    httpserver.expect_request("/v1/jobs").respond_with_json({"error": error}, status=422)
    done = run("submit", "--model", "x", "hello", url=httpserver.url_for(""))
    assert (done.returncode, done.stderr) == (1, "No model x. (model_not_found, model)\n")


def test_submit_sends_what_the_options_say(httpserver: HTTPServer, tmp_path: Path) -> None:
    image = tmp_path / "dot.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n")
    httpserver.expect_request("/v1/files", method="POST").respond_with_json({"id": "file_1"}, status=201)
    httpserver.expect_request("/v1/jobs", method="POST").respond_with_json({"id": "job_1", "status": "queued"})
    options = ["--model", "m", "--system", "Be brief.", "--max-new-tokens", "9", "--seed", "3", "--num-frames", "4"]
    video = "https://example.com/a.mp4"
    done = run(
        "submit",
        str(image),
        video,
        "What?",
        *options,
        "--webhook",
        "https://a.example",
        "-d",
        url=httpserver.url_for(""),
    )
    assert (done.returncode, done.stdout) == (0, "job_1\n"), done.stderr
    request = next(request for request, _ in httpserver.log if request.path == "/v1/jobs")
    assert json.loads(request.get_data()) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "image", "file_id": "file_1"},
                    {"type": "video", "url": video, "num_frames": 4},
                    {"type": "text", "text": "What?"},
                ],
            },
        ],
        "generation": {"max_new_tokens": 9, "seed": 3},
        "webhook": {"url": "https://a.example"},
    }


def test_a_webhook_secret_needs_a_master_and_differs_by_tenant(tmp_path: Path) -> None:
    place = {"VLMQ_DATA_DIR": str(tmp_path)}
    without = run("webhook-secret", **place)
    assert without.returncode == 1 and without.stderr.startswith("VLMQ_WEBHOOKS__SECRET is not set")
    assert "VLMQ_DATA_DIR" in without.stderr
    master = run("webhook-secret", "--new", **place).stdout.strip()
    secrets = [run("webhook-secret", "--tenant", t, VLMQ_WEBHOOKS__SECRET=master, **place).stdout for t in ("a", "b")]
    assert all(secret.startswith("whsec_") for secret in secrets)
    assert len({master + "\n", *secrets}) == 3


def test_a_tenant_without_a_key_has_no_webhook_secret(tmp_path: Path) -> None:
    DataDir(tmp_path).make_master_secret()
    place = {"VLMQ_DATA_DIR": str(tmp_path), "VLMQ_API_KEYS": "team-b:2,team-a:1"}
    for given, named in (["--tenant", "team-c"], "team-c"), ([], "default"):
        done = run("webhook-secret", *given, **place)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"VLMQ_API_KEYS has no tenant '{named}'; --tenant takes team-a, team-b\n"
    assert run("webhook-secret", "--tenant", "team-a", **place).stdout.startswith("whsec_")


def test_the_secret_of_another_data_directory_can_be_asked_for(tmp_path: Path) -> None:
    DataDir(tmp_path).make_master_secret()
    done = run("webhook-secret", "--data-dir", str(tmp_path))
    assert (done.returncode, done.stdout[:6]) == (0, "whsec_"), done.stderr


def test_a_status_that_no_job_can_have_is_refused_with_those_that_there_are() -> None:
    done = run("jobs", "--status", "done", url="http://127.0.0.1:1")
    assert done.returncode == 2
    assert "'done' is not one of 'queued', 'in_progress', 'completed'" in done.stderr
