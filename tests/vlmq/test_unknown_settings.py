from pathlib import Path

import pytest

from vlmq.config import Settings
from vlmq.doctor_settings import look_at_settings
from vlmq.unknown_settings import unknown_settings


def test_a_misspelt_setting_is_named_with_the_one_that_is_meant(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("VLMQ_API_KEY=x\nVLMQ_MEDIAROOT=/media\nPOSTGRES_PASSWORD=x\n")
    given = {"VLMQ_MODEL_FILE": "x", "VLMQ_COLOUR_OF_THE_SKY": "x", "VLMQ_LIMITS__MAX_IMAGES": "3", "HOME": "/"}
    assert unknown_settings(given, file) == {
        "VLMQ_COLOUR_OF_THE_SKY": None,
        "VLMQ_MEDIAROOT": "VLMQ_MEDIA_ROOT",
        "VLMQ_MODEL_FILE": "VLMQ_MODELS_FILE",
    }


def test_no_setting_is_unknown(tmp_path: Path) -> None:
    names = {"VLMQ_" + name.upper() for name in Settings.model_fields}
    given = dict.fromkeys(names, "x") | {"vlmq_port": "8000", "VLMQ_MODELS__TINY__DEVICE": "cpu"}
    assert unknown_settings(given, tmp_path / ".env") == {}


def test_what_has_a_name_of_its_own_is_read_by_its_name_here_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLMQ_HF_TOKEN", "hf_1")
    monkeypatch.setenv("VLMQ_DATABASE_URL", "sqlite:////srv/jobs.db")
    settings = Settings(_env_file=None)
    assert settings.hf_token is not None
    assert (settings.hf_token.get_secret_value(), settings.database_url) == ("hf_1", "sqlite:////srv/jobs.db")


def test_the_doctor_says_that_it_does_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert [found for found in look_at_settings() if "PROT" in found.message] == []
    monkeypatch.setenv("VLMQ_PROT", "8001")
    found = next(found for found in look_at_settings() if "PROT" in found.message)
    assert (found.level, found.message) == ("warn", "VLMQ_PROT is no setting and does nothing")
    assert found.advice == "did you mean VLMQ_PORT?"
