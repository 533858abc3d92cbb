import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from api.app import create_app
from vlmq.config import Settings

PATHS = ["/v1/jobs", "/v1/files", "/v1/models", "/v1/deliveries", "/v1/webhook_secret", "/metrics", "/v1/nothing"]


@pytest.fixture
def guarded(settings: Settings) -> FlaskClient:
    keys = {"acme": SecretStr("clé-a"), "umbrella": SecretStr("key-u")}
    return create_app(settings.model_copy(update={"api_keys": keys})).test_client()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic key-u", "key-u", "Bearer key-u x"]
)
def test_without_a_known_key_nothing_is_told(guarded: FlaskClient, path: str, given: str | None) -> None:
    answer = guarded.get(path, headers={} if given is None else {"Authorization": given})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json is not None
    assert answer.json["error"]["code"] == "invalid_api_key"
    assert "key-u" not in answer.get_data(as_text=True)


@pytest.mark.parametrize("key", ["clé-a", "key-u"])
def test_a_known_key_opens(guarded: FlaskClient, key: str) -> None:
    # Headers travel as latin-1; clients send UTF-8 bytes in it.
    given = f"bearer {key}".encode().decode("latin-1")
    assert guarded.get("/v1/jobs", headers={"Authorization": given}).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/openapi.json", "/docs/swagger", "/"])
def test_health_and_documentation_are_open(guarded: FlaskClient, path: str) -> None:
    assert guarded.get(path, follow_redirects=True).status_code == 200
    assert guarded.get("/readyz").status_code == 503
