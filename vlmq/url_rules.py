"""Which URLs and addresses may be called for a user."""

import ipaddress
import re
import socket
from contextlib import suppress
from urllib.parse import urlparse

import requests
from requests_hardened.ip_filter import EXTRA_BLOCKED_NET_RANGES
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

MAX_URL_CHARS = 8192

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\\]")
_LOCAL_NAME = re.compile(r"(^|\.)(localhost|localdomain|local|internal|intranet|lan|home\.arpa)$")
_PUBLIC_V6 = ipaddress.ip_network("2000::/3")


def objection(url: str, *, allow_private: bool, https_only: bool = False) -> str | None:  # noqa: PLR0911 - one a rule
    """Why `url` is not allowed, to be read after "The URL"; None when nothing speaks against it. No DNS is asked."""
    if len(url) > MAX_URL_CHARS:
        return f"is longer than {MAX_URL_CHARS} characters"
    if _FORBIDDEN.search(url):
        return "holds a space, a backslash or a control character"
    scheme = url.partition(":")[0].lower()
    schemes = ("https",) if https_only and not allow_private else ("http", "https")
    if scheme not in schemes:
        return f"must begin with {' or '.join(f'{name}://' for name in schemes)}"
    try:
        # requests prepares with one parser and connects with another: what they say must be the same.
        prepared = requests.Request("GET", url).prepare().url or ""
        told, dialled = parse_url(prepared), urlparse(prepared)
        port = dialled.port
    except (requests.RequestException, LocationParseError, ValueError):
        return "is not a valid URL"
    host = (dialled.hostname or "").lower()
    if not host or (told.host or "").lower().strip("[]") != host or told.port != port or told.scheme != scheme:
        return "is not a valid URL"
    # Asked of the URL as it came: requests drops an empty user name.
    if told.auth is not None or "@" in re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0]:
        return "must not hold a user name or password"
    if allow_private:
        return None
    if port not in (None, 80, 443):
        return "may only use the ports 80 and 443"
    return _host_objection(host.rstrip("."))


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the open internet, and no translation to one that is not."""
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    if address.version == 6 and address not in _PUBLIC_V6:
        return False
    return not any(address in network for network in EXTRA_BLOCKED_NET_RANGES)


def _host_objection(host: str) -> str | None:
    address = _literal_address(host)
    if address is not None:
        return None if is_public(address) else "points to an address that is not public"
    if _LOCAL_NAME.search(host) or "." not in host or ":" in host:
        return "points to a host that is not public"
    return None


def _literal_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with suppress(ValueError):
        return ipaddress.ip_address(host)
    # The C library also takes 127.1, 0x7f000001, 0177.0.0.1 and 2130706433 for addresses.
    with suppress(OSError, UnicodeError):
        return ipaddress.IPv4Address(socket.inet_aton(host))
    return None
