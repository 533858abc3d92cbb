"""Generation parameters from the door to the answer, with a real model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from flask.testing import FlaskClient
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from api.app import create_app
from engine.checkpoint import load_checkpoint
from engine.generate_engine import GenerateEngine
from engine.types import CheckpointSettings
from models.db import Database
from tests.processes import until
from tests.tasks.test_run_job import Desk
from vlmq.config import BUNDLED_CHECKPOINT, Settings, Timing
from vlmq.events import EventLog

LENGTH = 12


@pytest.fixture
def database_url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that learned nothing, so its choices are open."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("random-vlm")
    AutoProcessor.from_pretrained(BUNDLED_CHECKPOINT).save_pretrained(folder)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(BUNDLED_CHECKPOINT)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


@pytest.fixture
def engine(folder: Path) -> GenerateEngine:
    return GenerateEngine(load_checkpoint(CheckpointSettings(str(folder), device="cpu")))


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


@pytest.fixture
def desk(settings: Settings, database: Database, event_log: EventLog, engine: GenerateEngine) -> Iterator[Desk]:
    settled = settings.model_copy(update={"timing": Timing(lease_s=600, heartbeat_s=300)})
    desk = Desk(settled, database, event_log, engine)
    yield desk
    desk.close()


def ask(client: FlaskClient, desk: Desk, **generation: Any) -> dict[str, Any]:
    body = {
        "model": "scripted",
        "messages": [{"role": "user", "content": "What is it?"}],
        "generation": {"max_new_tokens": LENGTH} | generation,
    }
    created = client.post("/v1/jobs", json=body)
    assert created.json is not None
    assert created.status_code == 202, created.json
    assert desk.runner.run_next()
    job: dict[str, Any] = client.get(f"/v1/jobs/{created.json['id']}").json or {}
    until(lambda: any(event.is_final for event in desk.event_log.read(job["id"])), what="the last event")
    assert desk.text(job["id"]) == job["output_text"]
    return job


def test_the_same_seed_gives_the_same_text_and_another_seed_another(client: FlaskClient, desk: Desk) -> None:
    first, again, other = (ask(client, desk, do_sample=True, seed=seed) for seed in (7, 7, 8))
    assert first["output_text"] == again["output_text"] != other["output_text"]
    assert [job["manifest"]["seed"] for job in (first, again, other)] == [7, 7, 8]


def test_a_seed_that_the_service_drew_gives_the_same_text_when_it_is_named(client: FlaskClient, desk: Desk) -> None:
    drawn = ask(client, desk, temperature=1.0)
    named = ask(client, desk, temperature=1.0, seed=drawn["manifest"]["seed"])
    assert drawn["output_text"] == named["output_text"]


def test_several_texts_are_all_listed_and_all_counted(client: FlaskClient, desk: Desk) -> None:
    job = ask(client, desk, n=3, do_sample=True, seed=1)
    assert job["status"] == "completed"
    assert [output["finish_reason"] for output in job["outputs"]] == ["length"] * 3
    assert len({output["text"] for output in job["outputs"]}) == 3
    assert job["outputs"][0]["text"] == job["output_text"]
    assert job["usage"]["completion_tokens"] == 3 * LENGTH
    assert job["usage"]["total_tokens"] == job["usage"]["prompt_tokens"] + 3 * LENGTH
    listed = client.get("/v1/jobs").json
    assert listed is not None
    assert "outputs" not in listed["data"][0]


def test_beams_are_listed_the_best_first(client: FlaskClient, desk: Desk) -> None:
    job = ask(client, desk, num_beams=3, num_return_sequences=2)
    assert (job["status"], len(job["outputs"])) == ("completed", 2)
    assert job["outputs"][0]["text"] == job["output_text"]


def test_log_probabilities_come_with_the_tokens(client: FlaskClient, desk: Desk) -> None:
    job = ask(client, desk, logprobs=True, top_logprobs=2)
    (output,) = job["outputs"]
    assert len(output["logprobs"]) == job["usage"]["completion_tokens"]
    for entry in output["logprobs"]:
        assert entry["logprob"] <= 0
        assert entry["top_logprobs"][0]["logprob"] >= entry["top_logprobs"][1]["logprob"]
    told = b"".join(bytes(entry["bytes"]) for entry in output["logprobs"]).decode(errors="ignore")
    assert told.strip() == output["text"].replace("\ufffd", "").strip()


def test_one_text_has_no_list_of_outputs(client: FlaskClient, desk: Desk) -> None:
    assert ask(client, desk)["outputs"] is None


def test_every_byte_of_a_text_can_be_stored(client: FlaskClient, desk: Desk) -> None:
    nul = desk.runner.engine._vocabulary.tokenizer.encode("\0").ids  # type: ignore[attr-defined]
    job = ask(client, desk, logit_bias={str(token): 100 for token in nul}, logprobs=True, top_logprobs=20)
    assert job["status"] == "completed"
    assert "\0" not in json.dumps(job["outputs"], ensure_ascii=False)
    assert [0] in [entry["bytes"] for entry in job["outputs"][0]["logprobs"]]


@pytest.mark.parametrize(
    ("generation", "param"),
    [
        ({"eos_token_id": 10**6}, "eos_token_id"),
        ({"suppress_tokens": [10**6]}, "suppress_tokens"),
        ({"logit_bias": {"999999": 1}}, "sequence_bias"),
        ({"n": 2}, "num_return_sequences"),
    ],
)
def test_what_only_the_checkpoint_can_tell_fails_the_job_by_name(
    generation: dict[str, Any], param: str, client: FlaskClient, desk: Desk
) -> None:
    job = ask(client, desk, **generation)
    assert (job["status"], job["attempts"], job["error"]["code"]) == ("failed", 1, "invalid_request")
    assert job["error"]["param"] == f"generation.{param}"
