"""How the client speaks to one service over HTTP, and what can go wrong with it."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from vlmq.client_answers import Event
from vlmq.client_shapes import EVENT, EVENT_ID, EVENTS, REFUSAL, Shape, is_shallow
from vlmq.errors import ExplainedError
from vlmq.sse import Message


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

    def answer(self, shape: Shape, response: requests.Response) -> dict[str, Any]:
        """The JSON object of a response, which is shaped so if it is vlmq's."""
        answer = _answered(response)
        if not shape(answer):
            raise self.stranger()
        found: dict[str, Any] = answer
        return found

    def event(self, message: Message) -> Event:
        """A message of a job's stream, which is shaped like an event if it is vlmq's."""
        data = _parsed(message.data)
        if not (EVENT_ID.fullmatch(message.id) and EVENTS.get(message.event, EVENT)(data)):
            raise self.stranger()
        return Event(message.id, message.event, data)

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
    answer = _answered(response)
    if not REFUSAL(answer):
        return ApiError(response.status_code, "unknown", f"HTTP status {response.status_code} {response.reason}")
    error = answer["error"]
    return ApiError(response.status_code, error["code"], error["message"], error.get("param"))


def _answered(response: requests.Response) -> Any:
    """What a response says in JSON; None when it says nothing that can be read."""
    try:
        return _parsed(response.content)
    except requests.RequestException:
        return None  # a stream's answer is read only now, and may break off


def _parsed(text: str | bytes) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if is_shallow(value) else None
