"""Who is asking: API keys, and the tenant that each stands for."""

import hmac

from flask import Request, g

from vlmq.config import Settings
from vlmq.errors import ErrorCode, VlmqError

DEFAULT_TENANT = "default"


def authenticate(request: Request, settings: Settings) -> str:
    """The tenant of a request.

    Raises:
        VlmqError: INVALID_API_KEY.
    """
    if not settings.api_keys:
        return DEFAULT_TENANT
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise VlmqError(ErrorCode.INVALID_API_KEY, "Send your API key as `Authorization: Bearer KEY`.")
    # WSGI hands over a header's bytes as latin-1.
    given_bytes = given.strip().encode("latin-1", "replace")
    found = None
    for tenant, key in settings.api_keys.items():
        # Every key is compared, each in constant time: how long it takes tells nothing.
        if hmac.compare_digest(key.get_secret_value().encode(), given_bytes):
            found = tenant
    if found is None:
        raise VlmqError(ErrorCode.INVALID_API_KEY, "This API key is not known.")
    return found


def current_tenant() -> str:
    tenant: str = g.tenant
    return tenant
