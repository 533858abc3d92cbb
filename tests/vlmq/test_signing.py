import base64
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from vlmq.config import ConfigurationError, Settings, Webhooks
from vlmq.signing import new_master_secret, signed_headers, tenant_secrets

BODY = json.dumps(
    {"type": "job.completed", "data": {"output_text": "ein grüner Würfel 🟩"}}, ensure_ascii=False
).encode()


def with_secrets(secret: str | None, previous: str | None = None) -> Settings:
    wrapped = [None if text is None else SecretStr(text) for text in (secret, previous)]
    return Settings(webhooks=Webhooks(secret=wrapped[0], previous_secret=wrapped[1]), _env_file=None)


def test_a_receiver_with_its_tenants_secret_verifies_a_message() -> None:
    (secret,) = tenant_secrets(with_secrets(new_master_secret()), "acme")
    headers = signed_headers([secret], "whd_1", datetime.now(UTC), BODY)
    assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)
    assert headers["webhook-id"] == "whd_1"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("vlmq/")


def test_a_changed_body_id_or_time_does_not_verify() -> None:
    (secret,) = tenant_secrets(with_secrets(new_master_secret()), "acme")
    headers = signed_headers([secret], "whd_1", datetime.now(UTC), BODY)
    later = str(int(headers["webhook-timestamp"]) + 1)
    for body, changed in (
        (BODY + b" ", headers),
        (BODY, headers | {"webhook-id": "whd_2"}),
        (BODY, headers | {"webhook-timestamp": later}),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, changed)


def test_while_the_secret_rotates_the_old_and_the_new_one_verify() -> None:
    old, new = new_master_secret(), new_master_secret()
    (old_secret,) = tenant_secrets(with_secrets(old), "acme")
    (new_secret,) = tenant_secrets(with_secrets(new), "acme")
    both = tenant_secrets(with_secrets(new, previous=old), "acme")
    headers = signed_headers(both, "whd_1", datetime.now(UTC), BODY)
    assert both == [new_secret, old_secret]
    Webhook(old_secret).verify(BODY, headers)
    Webhook(new_secret).verify(BODY, headers)


def test_tenants_have_different_secrets_that_never_change() -> None:
    settings = with_secrets("whsec_" + base64.b64encode(bytes(range(32))).decode())
    secrets = [tenant_secrets(settings, tenant)[0] for tenant in ("acme", "other", "acme")]
    assert secrets[0] == secrets[2] != secrets[1]
    # Receivers have stored it: a different derivation would lock them all out.
    assert secrets[0] == "whsec_z8jwbfd/29w57t25Fbqsz7X8BNGW5npr9lL4ZFla52Q="


def test_the_time_is_the_same_in_whatever_zone_it_is_given() -> None:
    moment = datetime.now(UTC)
    (secret,) = tenant_secrets(with_secrets(new_master_secret()), "acme")
    elsewhere = moment.astimezone(timezone(timedelta(hours=5)))
    assert signed_headers([secret], "m", elsewhere, BODY) == signed_headers([secret], "m", moment, BODY)


def test_a_secret_that_lost_its_padding_is_the_same_secret() -> None:
    secret = new_master_secret()
    assert tenant_secrets(with_secrets(secret.rstrip("=")), "a") == tenant_secrets(with_secrets(secret), "a")


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        "whsec_",
        "secret",
        "whsec_" + base64.b64encode(b"too short").decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_not base64 at all, whatever its length may be",
        base64.b64encode(bytes(32)).decode(),
    ],
)
def test_a_malformed_master_secret_is_named_and_not_shown(malformed: str) -> None:
    with pytest.raises(ConfigurationError, match="VLMQ_WEBHOOKS__SECRET is malformed; it takes whsec_") as refusal:
        tenant_secrets(with_secrets(malformed), "acme")
    if len(malformed) > len("whsec_"):
        assert malformed not in str(refusal.value)
    with pytest.raises(ConfigurationError, match="VLMQ_WEBHOOKS__PREVIOUS_SECRET"):
        tenant_secrets(with_secrets(new_master_secret(), previous=malformed), "acme")


def test_without_a_master_secret_nothing_is_signed() -> None:
    with pytest.raises(ConfigurationError, match="VLMQ_WEBHOOKS__SECRET is not set"):
        tenant_secrets(with_secrets(None), "acme")
