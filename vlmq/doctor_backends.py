"""What vlmq needs beside the machine: checkpoints, secrets, the database, Redis."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import redis
from sqlalchemy.exc import SQLAlchemyError

from migrations.schema import current_revision, is_current, is_known
from models.db import Database
from vlmq.config import Settings
from vlmq.data_dir import DataDir, DataDirError, with_own_secret
from vlmq.finding import Finding
from vlmq.served_model import ServedModel

OLDEST_REDIS = 7


def look_at_models(settings: Settings) -> Iterator[Finding]:
    for name, model in settings.models.items():
        yield _model(f"model {name}", model)
        yield from _extras(f"model {name}", model)


def _model(subject: str, model: ServedModel) -> Finding:
    if model.engine == "scripted":
        return Finding(subject, "warn", "scripted", "it answers from a script, for tests")
    folder = Path(model.checkpoint).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or model.checkpoint.count("/") != 1:
            return Finding(
                subject, "fail", f"there is no folder {model.checkpoint}", "correct its checkpoint in VLMQ_MODELS"
            )
        pinned = "" if model.revision else "pin its `revision` in production"
        return Finding(subject, "ok", f"{model.checkpoint}, downloaded from the hub unless it is in its cache", pinned)
    if not (folder / "config.json").is_file():
        return Finding(subject, "fail", f"{folder} has no config.json", "name the folder of a transformers checkpoint")
    weights = list(folder.glob("*.safetensors"))
    if not weights:
        return Finding(subject, "fail", f"{folder} has no *.safetensors", "convert the weights: nothing else is loaded")
    size = sum(file.stat().st_size for file in weights)
    return Finding(subject, "ok", f"{folder}, {size / 2**20:,.0f} MiB of weights")


def _extras(subject: str, model: ServedModel) -> Iterator[Finding]:
    """What only some models need."""
    wanted = {"peft": model.adapter is not None, "bitsandbytes": (model.quantization or "").startswith("bitsandbytes")}
    for package, is_wanted in wanted.items():
        if is_wanted and find_spec(package) is None:
            yield Finding(subject, "fail", f"it needs {package}, which is not installed", f"pip install {package}")
    folder = Path(model.adapter or "").expanduser()
    if model.adapter is not None and folder.is_absolute() and not (folder / "adapter_config.json").is_file():
        yield Finding(subject, "fail", f"{folder} is no adapter", "name the folder with its adapter_config.json")


def look_at_secrets(settings: Settings) -> Iterator[Finding]:
    try:
        secret = with_own_secret(settings).webhooks.secret
    except DataDirError as error:
        yield Finding("webhooks", "fail", str(error))
        return
    if secret is None:
        advice = "`vlmq serve` makes one; for parts that run alone: VLMQ_WEBHOOKS__SECRET=$(vlmq webhook-secret --new)"
        yield Finding("webhooks", "warn", "no signing secret yet", advice)
    else:
        yield Finding("webhooks", "ok", "a signing secret is set")
    if not settings.api_keys and settings.host not in ("127.0.0.1", "localhost", "::1"):
        yield Finding("keys", "warn", "whoever reaches the port may use it", "set VLMQ_API_KEYS=tenant:key")


def look_at_database(settings: Settings) -> Finding:
    if settings.sqlite_file is not None and not settings.sqlite_file.exists():
        return Finding("database", "warn", "no SQLite file yet", "`vlmq serve` or `vlmq db upgrade` makes it")
    database = Database(settings.sqlalchemy_url)
    try:
        revision, newest = current_revision(database.engine), is_current(database.engine)
        known = is_known(database.engine)
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        return Finding("database", "fail", f"does not answer: {reason}", "check DATABASE_URL and the server")
    finally:
        database.dispose()
    kind = database.engine.dialect.name
    if not known:
        return Finding("database", "fail", f"{kind}, schema {revision}, made by a newer vlmq", "run that version")
    if not newest:
        return Finding("database", "fail", f"{kind}, schema {revision or 'missing'}, not the newest", "vlmq db upgrade")
    return Finding("database", "ok", f"{kind}, schema {revision}")


def look_at_redis(settings: Settings, data: DataDir) -> Iterator[Finding]:
    own = "redis_url" not in settings.model_fields_set
    if own and not data.socket.exists():
        yield Finding("redis", "ok", "not running; `vlmq serve` starts its own", "other parts alone need REDIS_URL")
        return
    client = redis.Redis.from_url(
        data.redis_url if own else settings.redis_url, decode_responses=True, socket_timeout=3, socket_connect_timeout=3
    )
    try:
        server, memory, storage = (dict(client.info(section)) for section in ("server", "memory", "persistence"))
    except redis.RedisError as error:
        message = f"does not answer: {error}"
        yield Finding(
            "redis", "fail", message, "`vlmq serve` starts its own" if own else "check REDIS_URL and the server"
        )
        return
    finally:
        client.close()
    name = f"valkey {server['valkey_version']}" if "valkey_version" in server else f"redis {server['redis_version']}"
    if int(str(server["redis_version"]).partition(".")[0]) < OLDEST_REDIS:
        yield Finding("redis", "fail", f"{name} is too old", "run Redis 7 or newer, or Valkey")
        return
    yield Finding("redis", "ok", name)
    policy = memory.get("maxmemory_policy")
    if policy != "noeviction":
        yield Finding(
            "redis",
            "warn",
            f"maxmemory-policy is {policy}",
            "streams may vanish: CONFIG SET maxmemory-policy noeviction",
        )
    if not storage.get("aof_enabled"):
        advice = "a restart loses doorbells and streams (jobs are safe): CONFIG SET appendonly yes"
        yield Finding("redis", "warn", "appendonly is off", advice)
