from pathlib import Path

import pytest
from kombu.utils.url import url_to_parts
from sqlalchemy.engine import make_url

from vlmq.config import ConfigurationError, Settings, read_settings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "REDIS_URL", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("VLMQ_PORT", "abc", "VLMQ_PORT: "),
        ("VLMQ_PORT", "70000", "VLMQ_PORT: "),
        ("VLMQ_LOG_LEVEL", "loud", "VLMQ_LOG_LEVEL: "),
        ("VLMQ_LIMITS__MAX_IMAGES", "0", "VLMQ_LIMITS__MAX_IMAGES: "),
        ("VLMQ_LIMITS__MAX_IMAGESS", "3", "VLMQ_LIMITS__MAX_IMAGESS: "),
        ("VLMQ_TIMING__LEASE_S", "soon", "VLMQ_TIMING__LEASE_S: "),
        ("VLMQ_TIMING__LEASE_S", "1", "VLMQ_TIMING__LEASE_S must be at least twice VLMQ_TIMING__HEARTBEAT_S"),
        ("VLMQ_WEBHOOKS__RETRY_AFTER_S", "[5, -1]", "VLMQ_WEBHOOKS__RETRY_AFTER_S__1: "),
        ("VLMQ_WEBHOOKS__RETRY_AFTER_S", "5,300", "VLMQ_WEBHOOKS, or one that begins with VLMQ_WEBHOOKS__, "),
        ("VLMQ_MODELS", "{tiny}", "VLMQ_MODELS, or one that begins with VLMQ_MODELS__, "),
        ("VLMQ_MODELS", "{}", "VLMQ_MODELS names no model"),
        ("VLMQ_MODELS", '{"tiny": {}}', "VLMQ_MODELS__TINY__CHECKPOINT: "),
        ("VLMQ_MODELS", '{"tiny": {"checkpoint": "x", "device": "tpu"}}', "VLMQ_MODELS__TINY__DEVICE: "),
        ("VLMQ_MODELS", '{"": {"checkpoint": "x"}}', "VLMQ_MODELS cannot name a model ''; letters, digits"),
        ("VLMQ_MODELS", '{"../x": {"checkpoint": "x"}}', "VLMQ_MODELS cannot name a model '../x'"),
        ("VLMQ_MODELS", '{"a/../x": {"checkpoint": "x"}}', "VLMQ_MODELS cannot name a model 'a/../x'"),
        ("VLMQ_MODELS", '{"a b": {"checkpoint": "x"}}', "VLMQ_MODELS cannot name a model 'a b'"),
        ("VLMQ_HOST", "", "VLMQ_HOST: "),
        ("VLMQ_API_KEYS", "acme", "VLMQ_API_KEYS takes tenant:key,tenant:key"),
        ("VLMQ_API_KEYS", "acme:", "VLMQ_API_KEYS takes tenant:key,tenant:key"),
        ("VLMQ_API_KEYS", '{"acme": "key"}', "VLMQ_API_KEYS takes tenant:key,tenant:key"),
        ("VLMQ_API_KEYS", "acme:one,acme:two", "VLMQ_API_KEYS names a tenant or a key twice"),
        ("VLMQ_API_KEYS", "acme:one,umbrella:one", "VLMQ_API_KEYS names a tenant or a key twice"),
        ("REDIS_URL", "http://localhost", "REDIS_URL takes redis://, rediss:// or unix://"),
        ("DATABASE_URL", "mysql://localhost/vlmq", "DATABASE_URL takes postgresql:// or sqlite:///"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refusal:
        read_settings()
    assert str(refusal.value).startswith(said)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLMQ_WEBHOOKS__SECRETT", "whsec_dontshow"),
        ("VLMQ_API_KEYS", "acme:dontshow,umbrella:dontshow"),
        ("VLMQ_API_KEYS", "dontshow"),
        ("VLMQ_WEBHOOKS", "whsec_dontshow"),
    ],
)
def test_a_refusal_shows_no_secret(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refusal:
        read_settings()
    assert "dontshow" not in str(refusal.value)


def test_every_refused_variable_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMQ_PORT", "abc")
    monkeypatch.setenv("VLMQ_MAX_ATTEMPTS", "0")
    with pytest.raises(ConfigurationError) as refusal:
        read_settings()
    assert [line.split(":")[0] for line in str(refusal.value).splitlines()] == ["VLMQ_PORT", "VLMQ_MAX_ATTEMPTS"]


def test_api_keys_are_read_by_tenant_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMQ_API_KEYS", "acme:one:with-a-colon, umbrella:two")
    settings = read_settings()
    keys = {tenant: key.get_secret_value() for tenant, key in settings.api_keys.items()}
    assert keys == {"acme": "one:with-a-colon", "umbrella": "two"}
    assert "with-a-colon" not in repr(settings)


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgres://u:p@db/vlmq", "postgresql+psycopg"),
        ("postgresql://u:p@db/vlmq", "postgresql+psycopg"),
        ("postgresql+psycopg://u:p@db/vlmq", "postgresql+psycopg"),
        ("sqlite:////data/vlmq.db", "sqlite"),
    ],
)
def test_a_database_url_names_its_driver(given: str, driver: str) -> None:
    url = make_url(Settings(database_url=given, _env_file=None).sqlalchemy_url)
    assert url.drivername == driver
    if driver != "sqlite":
        assert (url.username, url.password, url.host, url.database) == ("u", "p", "db", "vlmq")


def test_without_a_database_url_it_is_sqlite_in_the_data_directory(tmp_path: Path) -> None:
    url = make_url(Settings(data_dir=tmp_path, _env_file=None).sqlalchemy_url)
    assert (url.drivername, url.database) == ("sqlite", str(tmp_path / "vlmq.db"))


@pytest.mark.parametrize(
    ("given", "socket", "database"),
    [("unix:///run/redis.sock", "run/redis.sock", None), ("unix:///run/redis.sock?db=3", "run/redis.sock", "3")],
)
def test_kombu_understands_the_url_of_a_unix_socket(given: str, socket: str, database: str | None) -> None:
    parts = url_to_parts(Settings(redis_url=given, _env_file=None).broker_url)
    assert (parts.scheme, parts.path.lstrip("/")) == ("redis+socket", socket)
    assert parts.query.get("virtual_host") == database


@pytest.mark.parametrize("given", ["redis://:pw@cache:6380/2", "rediss://cache/0"])
def test_other_redis_urls_go_to_the_broker_as_they_are(given: str) -> None:
    assert Settings(redis_url=given, _env_file=None).broker_url == given


def test_the_environment_goes_before_the_file_and_both_before_the_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("VLMQ_PORT=9001\nVLMQ_LIMITS__MAX_IMAGES=7\n")
    monkeypatch.setenv("VLMQ_PORT", "9002")
    settings = read_settings()
    assert (settings.port, settings.limits.max_images, settings.limits.max_videos) == (9002, 7, 4)


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8000"), ("::", "http://[::1]:8000"), ("a.host", "http://a.host:8000")],
)
def test_the_local_url_can_be_called(host: str, url: str) -> None:
    assert Settings(host=host, _env_file=None).local_url == url
