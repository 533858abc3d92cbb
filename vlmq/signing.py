"""Signatures of webhooks, by the Standard Webhooks specification.

One master secret signs for everybody: each tenant's own secret is derived from it, so there is none to store, and a
tenant who knows theirs learns nothing about another's.
"""

import base64
import binascii
import hashlib
import hmac
import secrets as random_source
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

from vlmq import __version__
from vlmq.config import ConfigurationError, Settings

PREFIX = "whsec_"
# What the specification asks of a secret, in bytes.
MIN_BYTES, MAX_BYTES = 24, 64

_WANTED = f"it takes {PREFIX} and the base64 of {MIN_BYTES} to {MAX_BYTES} random bytes"


def new_master_secret() -> str:
    """A fresh value for VLMQ_WEBHOOKS__SECRET."""
    return _encode(random_source.token_bytes(32))


def is_secret(text: str) -> bool:
    """Whether it has the form of a secret."""
    try:
        _decode(text, "")
    except ConfigurationError:
        return False
    return True


def tenant_secrets(settings: Settings, tenant: str) -> list[str]:
    """The secrets that sign for this tenant: the current one, and after it the previous one while it is set.

    Raises:
        ConfigurationError: there is no master secret, or it is malformed.
    """
    webhooks = settings.webhooks
    if webhooks.secret is None:
        raise ConfigurationError(
            "VLMQ_WEBHOOKS__SECRET is not set, and webhooks cannot be signed without it; " + _WANTED
        )
    masters = [_decode(webhooks.secret.get_secret_value(), "VLMQ_WEBHOOKS__SECRET")]
    if webhooks.previous_secret is not None:
        masters.append(_decode(webhooks.previous_secret.get_secret_value(), "VLMQ_WEBHOOKS__PREVIOUS_SECRET"))
    label = b"vlmq webhook:" + tenant.encode()
    return [_encode(hmac.digest(master, label, hashlib.sha256)) for master in masters]


def signed_headers(secrets: Sequence[str], message_id: str, timestamp: datetime, body: bytes) -> dict[str, str]:
    """The headers of one try to send `body`: a receiver accepts it if it knows any of `secrets`."""
    moment = timestamp.astimezone(UTC)
    signatures = [Webhook(secret).sign(message_id, moment, body.decode()) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": f"vlmq/{__version__}",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _encode(secret: bytes) -> str:
    return PREFIX + base64.b64encode(secret).decode()


def _decode(text: str, variable: str) -> bytes:
    encoded = text.removeprefix(PREFIX)
    try:
        # Padding is often lost on the way through a shell or a YAML file.
        secret = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if encoded == text or not MIN_BYTES <= len(secret) <= MAX_BYTES:
        raise ConfigurationError(f"{variable} is malformed; {_WANTED}")
    return secret
