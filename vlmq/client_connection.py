"""How the client speaks to one service over HTTP, and what can go wrong with it."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from vlmq.errors import ExplainedError


class ClientError(ExplainedError):
    """The service answered with an error, or not at all."""


class UnreachableError(ClientError):
    """Nothing answers at the address."""


class ApiError(ClientError):
    """The service refused; `code` is one of vlmq's error codes, `param` the field at fault."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(f"{message} ({code}{f', {param}' if param else ''})")
        self.status, self.code, self.message, self.param = status, code, message, param


class Connection:
    """A session with one service, kept open from call to call.

    Raises:
        ClientError: the address or the key cannot be used.
    """

    def __init__(self, url: str, api_key: str | None, timeout_s: float) -> None:
        self.url = _checked_url(url)
        self._timeout_s = timeout_s
        self._session = requests.Session()
        if api_key:
            if not (api_key.isascii() and api_key.isprintable()):
                raise ClientError("the API key cannot be sent: it takes printable ASCII characters, without newlines")
            # Not as a header, which a login for the same host in ~/.netrc would replace.
            self._session.auth = _Bearer(api_key)

    def close(self) -> None:
        self._session.close()

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """The answer to a request, which went well; `options` are those of requests.

        Raises:
            ClientError: nothing answers, or the service refused (see its kinds).
        """
        try:
            response = self._session.request(method, self.url + path, **({"timeout": self._timeout_s} | options))
        except requests.ReadTimeout as error:
            raise UnreachableError(f"{self.url} took too long to answer") from error
        except requests.exceptions.SSLError as error:
            raise ClientError(f"{self.url} has no certificate that can be trusted, or does not speak TLS") from error
        except requests.ConnectionError as error:
            raise UnreachableError(f"nothing answers at {self.url}; start it with `vlmq serve`") from error
        except (requests.RequestException, UnicodeError) as error:
            raise ClientError(f"{self.url} cannot be asked: {error}") from error
        if response.ok:
            return response
        with response:
            raise _refusal(response)

    def answer(self, member: str, response: requests.Response) -> dict[str, Any]:
        """The JSON object of a response, which has this member if it is vlmq's."""
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or member not in answer:
            raise self.stranger()
        return answer

    def stranger(self) -> ClientError:
        """The error for an answer that is not vlmq's."""
        return ClientError(f"what answers at {self.url} is not vlmq; check the address")


@dataclass(frozen=True, slots=True)
class _Bearer(requests.auth.AuthBase):
    api_key: str

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.api_key}"
        return request


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or any(character in url for character in "?# \t\r\n"):
        raise ClientError(f"{url!r} is no address of a service; it takes http://HOST:PORT")
    return url.rstrip("/")


def _refusal(response: requests.Response) -> ApiError:
    try:
        error = response.json()["error"]
        return ApiError(response.status_code, str(error["code"]), str(error["message"]), error.get("param"))
    except (ValueError, KeyError, TypeError):
        return ApiError(response.status_code, "unknown", f"HTTP status {response.status_code} {response.reason}")
