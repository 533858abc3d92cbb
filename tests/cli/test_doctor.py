"""What the doctor finds, against real servers and real trouble."""

import os
import socket
from pathlib import Path

import pytest
import redis

from tests.cli.test_command_line import run
from vlmq.config import Settings
from vlmq.doctor import examine
from vlmq.doctor_machine import look_at_packages
from vlmq.finding import Finding
from vlmq.free_port import free_port
from vlmq.served_model import ServedModel


@pytest.fixture
def settings(tmp_path: Path, sqlite_url: str, redis_url: str) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        database_url=sqlite_url,
        redis_url=redis_url,
        port=free_port("127.0.0.1", 0),
        _env_file=None,
    )


def finding(settings: Settings, subject: str) -> Finding:
    return next(found for found in examine(settings) if found.subject == subject)


def test_all_is_well_with_a_current_schema_and_a_checkpoint(settings: Settings) -> None:
    levels = {found.subject: found.level for found in examine(settings)}
    wanted = ("python", "packages", "worker", f"port {settings.port}", "model tiny-vlm", "database")
    assert {name: levels[name] for name in wanted} == dict.fromkeys(wanted, "ok")


def test_another_system_than_linux_is_said_not_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    found = next(look_at_packages())
    assert (found.subject, found.level, found.message) == ("system", "fail", "darwin")


def test_a_taken_port_names_who_listens(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", settings.port)):
        found = finding(settings, f"port {settings.port}")
    assert found.level == "fail"
    assert f"by process {os.getpid()}" in found.message


def test_an_old_schema_says_how_to_upgrade(settings: Settings, tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()
    found = finding(settings.model_copy(update={"database_url": f"sqlite:///{empty}"}), "database")
    assert (found.level, found.advice) == ("fail", "vlmq db upgrade")


def test_a_database_that_is_away_does_not_end_the_look(settings: Settings) -> None:
    away = f"postgresql://nobody:secret@127.0.0.1:{free_port('127.0.0.1', 0)}/none"
    found = finding(settings.model_copy(update={"database_url": away}), "database")
    assert found.level == "fail"
    assert "secret" not in found.message


def test_a_redis_that_evicts_or_forgets_is_warned_of(settings: Settings) -> None:
    with redis.Redis.from_url(settings.redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            warnings = [found.message for found in examine(settings) if found.subject == "redis"]
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert "maxmemory-policy is allkeys-lru" in warnings


def test_a_checkpoint_that_is_not_there_or_has_no_safetensors_fails(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    models = {
        "gone": ServedModel(checkpoint=str(tmp_path / "gone")),
        "half": ServedModel(checkpoint=str(tmp_path / "half")),
        "hub": ServedModel(checkpoint="owner/name"),
    }
    found = {item.subject: item for item in examine(settings.model_copy(update={"models": models}))}
    assert found["model gone"].level == "fail"
    assert "no *.safetensors" in found["model half"].message
    assert (found["model hub"].level, found["model hub"].advice) == ("ok", "pin its `revision` in production")


def test_an_open_port_without_keys_is_warned_of(settings: Settings) -> None:
    assert finding(settings.model_copy(update={"host": "0.0.0.0"}), "keys").level == "warn"


def test_the_command_fails_when_a_finding_does(tmp_path: Path) -> None:
    models = '{"gone": {"checkpoint": "/nowhere"}}'
    done = run("doctor", VLMQ_DATA_DIR=str(tmp_path), VLMQ_MODELS=models)
    assert done.returncode == 1
    assert "there is no folder /nowhere" in done.stdout


def test_a_data_directory_that_is_a_file_fails(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = finding(settings.model_copy(update={"data_dir": tmp_path / "file"}), "disk")
    assert (found.level, found.message) == ("fail", f"{tmp_path / 'file'} is not a folder")


def test_a_damaged_secret_fails(settings: Settings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "webhook.secret").write_bytes(b"\xff")
    assert finding(settings, "webhooks").level == "fail"


def test_what_an_adapter_or_a_quantization_needs_is_looked_for(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmq.doctor_backends.find_spec", lambda _name: None)
    served = ServedModel(checkpoint="org/vlm", adapter=str(tmp_path), quantization="bitsandbytes-8bit")
    found = examine(settings.model_copy(update={"models": {"vlm": served}}))
    told = {(finding.message, finding.advice) for finding in found if finding.level == "fail"}
    assert ("it needs peft, which is not installed", "pip install peft") in told
    assert ("it needs bitsandbytes, which is not installed", "pip install bitsandbytes") in told
    assert (f"{tmp_path} is no adapter", "name the folder with its adapter_config.json") in told
