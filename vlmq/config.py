"""Every setting, read once at start from the environment, `.env` and secrets files; nothing else reads the environment.

`VLMQ_…` names a setting, `__` goes one level down (`VLMQ_LIMITS__MAX_IMAGES=16`), and `DATABASE_URL`, `REDIS_URL` and
`HF_TOKEN` mean what they mean everywhere.
"""

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from vlmq.errors import ExplainedError
from vlmq.limits import Limits
from vlmq.models_file import NAMES, ModelsFileError, is_model_name, read_models
from vlmq.served_model import ServedModel

BUNDLED_CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "tiny-vlm"
BUNDLED_MODEL = "tiny-vlm"


class ConfigurationError(ExplainedError):
    """The settings cannot be used; the message names each variable and what it takes."""


class Timing(BaseModel):
    """How the parts wait for each other, in seconds. Tests shorten these."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lease_s: PositiveFloat = Field(30.0, description="a worker that does not renew for this long has lost its jobs")
    heartbeat_s: PositiveFloat = Field(3.0, description="how often a worker renews its leases")
    reconcile_s: PositiveFloat = Field(2.0, description="how often lost doorbells and expired leases are looked for")
    drain_s: PositiveFloat = Field(3.0, description="how long jobs may run on after SIGTERM before they go back")
    stall_s: PositiveFloat = Field(300.0, description="an engine without a step for this long is taken for hung")
    sse_heartbeat_s: PositiveFloat = 15.0
    max_wait_s: PositiveFloat = Field(60.0, description="the longest `?wait=`")
    stream_ttl_s: PositiveInt = Field(3600, description="how long a finished job's stream can be replayed")
    webhook_output_s: PositiveFloat = Field(1.0, description="partial text is coalesced to one job.output per this")


class Webhooks(BaseModel):
    """Signing and delivery of webhooks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret: SecretStr | None = Field(None, description="whsec_… master; every tenant's own secret is derived from it")
    previous_secret: SecretStr | None = Field(None, description="signs beside `secret` while receivers rotate")
    # Svix's schedule, the widest used: eight tries over about 28 hours.
    retry_after_s: tuple[Annotated[float, Field(ge=0)], ...] = (5, 300, 1800, 7200, 18000, 36000, 36000)
    timeout_s: PositiveFloat = 15.0
    max_response_bytes: PositiveInt = 20 * 1024
    max_in_flight_per_host: PositiveInt = 4


class Settings(BaseSettings):
    """All of vlmq's settings."""

    model_config = SettingsConfigDict(
        env_prefix="VLMQ_",
        env_nested_delimiter="__",
        env_file=".env",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    data_dir: Path = Field(Path(".vlmq"), description="files, the one-machine database and Redis")
    database_url: str = Field(
        "",
        validation_alias=AliasChoices("DATABASE_URL", "VLMQ_DATABASE_URL"),
        description="postgresql://… or sqlite:///…; SQLite in the data directory unless set",
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias=AliasChoices("REDIS_URL", "VLMQ_REDIS_URL"),
        description="redis://, rediss:// or unix://; `vlmq serve` starts its own unless set",
    )
    hf_token: SecretStr | None = Field(None, validation_alias="HF_TOKEN", description="for gated checkpoints")

    media_root: Path | None = Field(
        None, description="jobs may name files below this folder by `path`; the workers must see it. Unset: none"
    )
    models: dict[str, ServedModel] = Field(
        default_factory=lambda: {BUNDLED_MODEL: ServedModel(checkpoint=str(BUNDLED_CHECKPOINT))},
        description='JSON: {"name": {"checkpoint": "…"}}',
    )
    models_file: Path | None = Field(None, description="a .toml or .json file with the models, in place of VLMQ_MODELS")

    host: str = Field("127.0.0.1", min_length=1, description="the address that the API listens on")
    port: int = Field(8000, ge=0, le=65535)
    api_processes: PositiveInt = Field(1, description="each holds thousands of streams; more use more cores")
    api_keys: Annotated[dict[str, SecretStr], NoDecode] = Field(
        default_factory=dict, description="tenant:key,tenant:key; without any, whoever reaches the port may use it"
    )
    dev_allow_private_urls: bool = Field(
        False, description="development only: media and webhook URLs may be http and point to this machine or network"
    )
    light_threads: PositiveInt = Field(32, description="webhooks that one light worker sends at once")
    max_attempts: PositiveInt = Field(3, description="tries that a job has; a shutdown of its worker costs none")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    limits: Limits = Limits()
    timing: Timing = Timing()
    webhooks: Webhooks = Webhooks()

    @model_validator(mode="before")
    @classmethod
    def _read_models_file(cls, values: dict[str, object]) -> dict[str, object]:
        file = values.get("models_file")
        if not file:
            return {name: value for name, value in values.items() if name != "models_file"}
        if "models" in values:
            raise ValueError("VLMQ_MODELS and VLMQ_MODELS_FILE are both set; unset one of them")
        try:
            return values | {"models": read_models(Path(str(file)), ServedModel)}
        except ModelsFileError as error:
            raise ConfigurationError(str(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _split_api_keys(cls, values: dict[str, object]) -> dict[str, object]:
        raw = values.get("api_keys")
        if not isinstance(raw, str):
            return values
        pairs = [re.fullmatch(r'([^\s:{}"]+):(\S+)', pair.strip()) for pair in raw.split(",") if pair.strip()]
        found = [(pair[1], pair[2]) for pair in pairs if pair is not None]
        if len(found) < len(pairs):
            raise ValueError("VLMQ_API_KEYS takes tenant:key,tenant:key")
        keys = dict(found)
        if len(set(keys.values())) < len(found):
            raise ValueError("VLMQ_API_KEYS names a tenant or a key twice")
        return values | {"api_keys": keys}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.models:
            raise ValueError('VLMQ_MODELS names no model; it takes {"name": {"checkpoint": "…"}}')
        if bad := [name for name in self.models if not is_model_name(name)]:
            raise ValueError(f"VLMQ_MODELS cannot name a model {bad[0]!r}; {NAMES}")
        if self.timing.heartbeat_s * 2 > self.timing.lease_s:
            raise ValueError("VLMQ_TIMING__LEASE_S must be at least twice VLMQ_TIMING__HEARTBEAT_S")
        if urlsplit(self.redis_url).scheme not in ("redis", "rediss", "unix"):
            raise ValueError("REDIS_URL takes redis://, rediss:// or unix://")
        if urlsplit(self.sqlalchemy_url).scheme not in ("postgresql+psycopg", "sqlite"):
            raise ValueError("DATABASE_URL takes postgresql:// or sqlite:///")
        return self

    @property
    def sqlalchemy_url(self) -> str:
        """DATABASE_URL with its driver named; SQLite in the data directory when unset."""
        url = self.database_url or f"sqlite:///{self.data_dir.resolve() / 'vlmq.db'}"
        for prefix in ("postgres://", "postgresql://"):
            if url.startswith(prefix):
                return "postgresql+psycopg://" + url.removeprefix(prefix)
        return url

    @property
    def sqlite_file(self) -> Path | None:
        """Where the database is, if it is SQLite's."""
        url = self.sqlalchemy_url
        return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None

    @property
    def broker_url(self) -> str:
        """REDIS_URL as kombu writes it, which spells a Unix socket in its own way."""
        if self.redis_url.startswith("unix://"):
            return "redis+socket://" + self.redis_url.removeprefix("unix://").replace("?db=", "?virtual_host=")
        return self.redis_url

    @property
    def local_url(self) -> str:
        """Where this machine reaches the API."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def files_dir(self) -> Path:
        return self.data_dir / "files"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """This process's settings.

    Raises:
        ConfigurationError: a variable cannot be used; the message names it.
    """
    return read_settings()


def read_settings() -> Settings:
    """Read the settings anew (see `get_settings`)."""
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(dict(item)) for item in error.errors())) from None
    except SettingsError as error:
        # It names the field and says nothing of the value, which may be a secret.
        field = re.search(r'field "(\w+)"', str(error))
        name = f"VLMQ_{field[1].upper()}" if field else "VLMQ_…"
        raise ConfigurationError(f"{name}, or one that begins with {name}__, does not hold JSON as it should") from None


def environment_with(values: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `values` set in it, for a process that it starts."""
    return {**os.environ, **values}


def _explain(item: dict[str, object]) -> str:
    location = item["loc"]
    names = [str(part) for part in location] if isinstance(location, tuple) else []
    if not names:
        return str(item["msg"]).removeprefix("Value error, ")
    variable = names[0] if names[0] in ("DATABASE_URL", "REDIS_URL", "HF_TOKEN") else "VLMQ_" + "__".join(names).upper()
    if item["type"] == "extra_forbidden":
        # Without its value, which may be a secret.
        return f"{variable}: there is no such setting; docs/configuration.md lists them"
    return f"{variable}: {item['msg']} (got {item['input']!r})"
