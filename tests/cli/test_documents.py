"""What the documents and the containers say is what there is."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command

from vlmq.cli import app
from vlmq.config import Settings, Timing, Webhooks, environment_with
from vlmq.errors import ErrorCode
from vlmq.limits import Limits
from vlmq.reference import pages

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def settings_names() -> set[str]:
    nested: dict[str, type[BaseModel]] = {"LIMITS": Limits, "TIMING": Timing, "WEBHOOKS": Webhooks}
    names = {f"VLMQ_{name.upper()}" for name in Settings.model_fields}
    names |= {f"VLMQ_{group}__{name.upper()}" for group, model in nested.items() for name in model.model_fields}
    return names | {"DATABASE_URL", "REDIS_URL", "HF_TOKEN", "VLMQ_URL", "VLMQ_API_KEY"}


def command_paths() -> set[tuple[str, ...]]:
    root: Any = get_command(app)
    paths: set[tuple[str, ...]] = set()
    for name, command in root.commands.items():
        paths |= {(name, child) for child in getattr(command, "commands", {})} or {(name,)}
    return paths


def is_command(words: list[str]) -> bool:
    return any(tuple(words[: len(path)]) == path for path in command_paths())


@pytest.mark.parametrize("name", ["errors.md", "configuration.md", "cli.md"])
def test_a_page_that_follows_from_the_code_is_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


def test_every_error_code_and_every_setting_is_documented() -> None:
    errors, configuration = pages()["errors.md"], pages()["configuration.md"]
    assert [code for code in ErrorCode if f"`{code}`" not in errors] == []
    groups = {"VLMQ_LIMITS", "VLMQ_TIMING", "VLMQ_WEBHOOKS"}
    unlisted = {"VLMQ_URL", "VLMQ_API_KEY", "VLMQ_DATABASE_URL", "VLMQ_REDIS_URL", "VLMQ_HF_TOKEN"} | groups
    assert [name for name in settings_names() - unlisted if f"`{name}`" not in configuration] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_settings_commands_targets_and_links_in_a_document_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert set(re.findall(r"\b(?:VLMQ_[A-Z_]*[A-Z]|DATABASE_URL|REDIS_URL)\b", text)) <= settings_names() | {
        "VLMQ_MODEL"
    }
    commands = re.findall(r"(?:`|^|bin/|\$\()vlmq ((?!is |\[|COMMAND)[a-z][^`\n]*)", text, re.MULTILINE)
    assert [command for command in commands if not is_command(command.split())] == []
    targets = set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [target for target in targets if f"\n{target}:" not in makefile] == []
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (document.parent / link).exists()] == []


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return found


def test_every_service_of_ours_runs_a_command_with_settings_that_exist() -> None:
    services = compose()["services"]
    ours = {name: service for name, service in services.items() if str(service.get("image")).startswith("vlmq")}
    assert set(ours) == {"migrate", "api", "light-worker", "gpu-worker"}
    for name, service in ours.items():
        assert is_command(service["command"]), name
        assert set(service["environment"]) <= settings_names(), name
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert any(volume.endswith(":/data") for volume in service["volumes"]), name
        test = service.get("healthcheck", {}).get("test", ["CMD", "python", "-m", "vlmq", "healthcheck"])
        assert test[:4] == ["CMD", "python", "-m", "vlmq"] and is_command(test[4:]), name


def test_secrets_have_no_default_and_what_is_stored_has_a_volume() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for secret in ("POSTGRES_PASSWORD", "VLMQ_API_KEYS", "VLMQ_WEBHOOKS__SECRET"):
        assert re.findall(rf"\${{{secret}(.)", text) and set(re.findall(rf"\${{{secret}(..)", text)) == {":?"}
    services, volumes = compose()["services"], compose()["volumes"]
    used = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert used == set(volumes)
    assert "noeviction" in services["redis"]["command"] and "--appendonly" in services["redis"]["command"]


def test_services_wait_for_the_migrations_and_for_redis() -> None:
    services = compose()["services"]
    for name in ("api", "light-worker", "gpu-worker"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert services[name]["depends_on"]["redis"] == {"condition": "service_healthy"}
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    devices = services["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


@pytest.mark.parametrize(
    ("dockerfile", "modules"),
    [
        ("api.Dockerfile", "vlmq.cli, vlmq.health, api.server, api.app, tasks.light_worker, migrations.schema"),
        ("worker.Dockerfile", "vlmq.cli, vlmq.health, tasks.gpu_worker, media.load"),
    ],
)
def test_an_image_holds_every_package_that_its_commands_import(dockerfile: str, modules: str, tmp_path: Path) -> None:
    lines = (ROOT / "docker" / dockerfile).read_text(encoding="utf-8").splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY") and not line.endswith(".txt")]
    for name in copied:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".training"))
    ours = [path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()]
    code = (
        f"import sys, {modules}\n"
        f"print([n for n, m in sys.modules.items() if n.partition('.')[0] in {ours!r} and m.__file__"
        f" and not m.__file__.startswith({str(tmp_path)!r})])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment_with({"PYTHONPATH": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    elsewhere, torch = done.stdout.splitlines() or (done.stderr, "")
    assert elsewhere == "[]"
    assert torch == "False"
    assert "USER vlmq" in lines


def test_the_pins_of_the_images_have_no_registry_and_the_apis_no_torch() -> None:
    for name in ("api", "worker", "dev"):
        lines = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if not re.match(r"[a-z0-9-]+==[^ ]+( ; .*)?$", line)] == []
        assert any(line.startswith("torch==") for line in lines) == (name != "api")


def test_all_that_the_project_asks_for_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"]
    for name, more in {"api": [], "worker": extras["worker"], "dev": extras["dev"]}.items():
        wanted = wanted + more
        pins = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        names = [re.split(r"[\[<>=]", requirement)[0] for requirement in wanted]
        assert [found for found in names if not re.search(rf"^{found}==", pins, re.MULTILINE)] == [], name
