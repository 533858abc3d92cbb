"""Served models from a file, and the settings that exclude each other."""

from pathlib import Path

import pytest

from tests.cli.test_command_line import run
from vlmq.config import ConfigurationError, read_settings
from vlmq.served_model import ServedModel

TOML = """
[tiny]
checkpoint = "checkpoints/tiny-vlm"

["org/small"]
checkpoint = "org/small-vlm"
revision = "v2"
quantization = "quanto-int8"
device_map = { "" = 0 }
modalities = ["text", "image"]
"""


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "REDIS_URL", "HF_TOKEN", "VLMQ_MODELS"):
        monkeypatch.delenv(name, raising=False)


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_models_come_from_a_toml_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMQ_MODELS_FILE", written(tmp_path, "models.toml", TOML))
    models = read_settings().models
    assert list(models) == ["tiny", "org/small"]
    assert models["org/small"].quantization == "quanto-int8"
    assert models["org/small"].device_map == {"": 0}
    assert models["org/small"].modalities == {"text", "image"}


def test_models_come_from_a_json_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = '{"tiny": {"checkpoint": "checkpoints/tiny-vlm", "warm_up": false}}'
    monkeypatch.setenv("VLMQ_MODELS_FILE", written(tmp_path, "models.json", content))
    assert read_settings().models == {"tiny": ServedModel(checkpoint="checkpoints/tiny-vlm", warm_up=False)}


def test_an_empty_variable_names_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMQ_MODELS_FILE", "")
    assert list(read_settings().models) == ["tiny-vlm"]


def test_the_file_and_the_variable_exclude_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMQ_MODELS_FILE", written(tmp_path, "models.toml", TOML))
    monkeypatch.setenv("VLMQ_MODELS", '{"tiny": {"checkpoint": "x"}}')
    with pytest.raises(ConfigurationError) as refusal:
        read_settings()
    assert str(refusal.value) == "VLMQ_MODELS and VLMQ_MODELS_FILE are both set; unset one of them"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("models.yaml", "tiny: {}", "named .toml or .json"),
        ("models.toml", "[tiny", "not TOML: "),
        ("models.json", "{", "not JSON: "),
        ("models.json", b"\xff{}", "not UTF-8"),
        ("models.json", "[" * 100_000, "not JSON: "),
        ("models.json", "[]", "it takes a table for each model"),
        ("models.toml", 'checkpoint = "x"', "it takes a table for each model"),
        ("models.toml", "", "it names no model"),
        ("models.json", '{"a": {"checkpoint": "x"}, "a": {"checkpoint": "y"}}', "not JSON: a name comes twice"),
        ("models.toml", "[tiny]", "the model tiny, checkpoint: Field required"),
        ("models.toml", '[tiny]\ncheckpoint = ""', "the model tiny, checkpoint: "),
        (
            "models.toml",
            '[tiny]\ncheckpoint = "x"\nquant = "y"',
            "the model tiny, quant: there is no such setting; a model has checkpoint, revision, ",
        ),
        (
            "models.toml",
            '[tiny]\ncheckpoint = "x"\nquantization = "gguf"',
            "the model tiny, quantization: Input should",
        ),
        ("models.toml", '[tiny]\ncheckpoint = "x"\nmax_model_len = 0', "the model tiny, max_model_len: "),
        ("models.toml", '["../x"]\ncheckpoint = "x"', "it cannot name a model '../x'"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_name_the_model_and_the_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | bytes, said: str
) -> None:
    path = written(tmp_path, name, content)
    monkeypatch.setenv("VLMQ_MODELS_FILE", path)
    with pytest.raises(ConfigurationError) as refusal:
        read_settings()
    assert str(refusal.value).startswith(f"{path}: ")
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ('"device": "cuda", "device_map": "auto"', "device and device_map exclude each other"),
        ('"adapter_revision": "v1"', "adapter_revision needs an adapter"),
        ('"device_map": "fast"', "it takes auto, balanced, sequential, or a GPU's number"),
        ('"device_map": "cuda"', "a model that is on one device names it as device"),
        ('"device_map": {"model": "disk"}', "it takes auto, balanced, sequential, or a GPU's number"),
        ('"device_map": {"model": -1}', "it takes auto, balanced, sequential, or a GPU's number"),
        ('"trust_remote_code": true', "TRUST_REMOTE_CODE: there is no such setting"),
        ('"device_map": {}', "it takes auto, balanced, sequential, or a GPU's number"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(monkeypatch: pytest.MonkeyPatch, fields: str, said: str) -> None:
    monkeypatch.setenv("VLMQ_MODELS", f'{{"tiny": {{"checkpoint": "x", {fields}}}}}')
    with pytest.raises(ConfigurationError) as refusal:
        read_settings()
    assert str(refusal.value).startswith("VLMQ_MODELS__TINY")
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_serve_refuses_a_file_that_is_not_there_in_one_line(tmp_path: Path) -> None:
    done = run("serve", "--models-file", str(tmp_path / "none.toml"), "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    expected = f"{tmp_path / 'none.toml'}: the file of models cannot be read: No such file or directory\n"
    assert (done.stdout, done.stderr) == ("", expected)
