"""Real sockets on loopback; where a public address is needed, the resolver and the dialling are redirected."""

import gzip
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import urllib3.util.connection
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from vlmq.errors import ErrorCode, VlmqError
from vlmq.outbound import OutboundError, check_url, fetch, post

PUBLIC = "93.184.215.14"
OK = b"HTTP/1.1 200 OK\r\n"

HOSTILE = [
    "file:///etc/passwd",
    "ftp://example.com/a.png",
    "data:image/png;base64,AAAA",
    "gopher://example.com/",
    "javascript:alert(1)",
    "//example.com/a.png",
    "example.com/a.png",
    "",
    "http://",
    "http:///a.png",
    "http://169.254.169.254/latest/meta-data",
    "http://127.0.0.1/",
    "http://127.1/",
    "http://127.0.0.1./",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://2130706433/",
    "http://0/",
    "http://0.0.0.0/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://192.88.99.1/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::a00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://localhost/",
    "http://LOCALHOST./",
    "http://a.localhost/",
    "http://printer.local/",
    "http://metadata.google.internal/",
    "http://redis/",
    "http://127\uff0e0\uff0e0\uff0e1/",
    "http://\u2460\u2461\u2466.0.0.1/",
    "http://127.0.0.1:6666\\@1.1.1.1",
    "http://1.1.1.1\\@127.0.0.1/",
    "http://user:password@example.com/",
    "http://user@example.com/",
    "http://example.com@127.0.0.1/",
    "http://@example.com/",
    "http://example.com/\r\nHost: internal",
    "http://example.com/a\tb",
    "http://exa mple.com/",
    " http://example.com/",
    "http://example.com\x00.evil.com/",
    "http://example.com:22/",
    "http://example.com:6379/",
    "http://example.com:8080/",
    "http://example.com:99999/",
    "http://example.com:port/",
    "http://[::1/",
    "http://example.com/" + "a" * 9000,
]


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_is_blocked_with_its_field(url: str) -> None:
    with pytest.raises(VlmqError) as caught:
        check_url(url, allow_private=False, param="messages.0.content.1.url")
    assert (caught.value.code, caught.value.status) == (ErrorCode.URL_BLOCKED, 422)
    assert caught.value.param == "messages.0.content.1.url"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "http://example.com:80/a b".replace(" ", "%20"),
        "HTTPS://EXAMPLE.com:443/?q=ä#x",
        "https://bücher.example/a.jpg",
        "http://1.1.1.1/a.png",
        "http://[2606:4700:4700::1111]/",
    ],
)
def test_an_ordinary_url_passes(url: str) -> None:
    check_url(url, allow_private=False, param=None)


def test_a_webhook_must_use_https_unless_private_urls_are_allowed() -> None:
    with pytest.raises(VlmqError, match="must begin with https://"):
        check_url("http://example.com/hook", allow_private=False, param="webhook.url", https_only=True)
    check_url("http://127.0.0.1:9000/hook", allow_private=True, param="webhook.url", https_only=True)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://user@127.0.0.1/", "http://127.0.0.1:6666\\@1.1.1.1", "http://localhost/\n"]
)
def test_the_development_switch_allows_no_odd_urls(url: str) -> None:
    with pytest.raises(VlmqError):
        check_url(url, allow_private=True, param=None)


def get(url: str, *, limit: int = 1000, timeout_s: float = 10, allow_private: bool = True) -> tuple[str, bytes]:
    sink = io.BytesIO()
    sha256 = fetch(url, limit_bytes=limit, timeout_s=timeout_s, allow_private=allow_private, sink=sink, param="p")
    return sha256, sink.getvalue()


def refusal(url: str, **options: Any) -> VlmqError:
    with pytest.raises(VlmqError) as caught:
        get(url, **options)
    assert caught.value.param == "p"
    assert "127.0.0.1" not in caught.value.message
    return caught.value


@contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that says just what `talk` says, for what no proper server would say."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(65536)
                    talk(connection)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_a_body_arrives_whole_with_its_hash(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a").respond_with_data(b"abc")
    sha256, body = get(httpserver.url_for("/a"))
    assert (body, sha256) == (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    sent = httpserver.log[0][0].headers
    assert (sent["Accept"], sent["Accept-Encoding"]) == ("image/*,video/*", "identity")


def test_the_environment_has_no_say(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    httpserver.expect_request("/a").respond_with_data(b"abc")
    assert get(httpserver.url_for("/a"))[1] == b"abc"


@pytest.mark.parametrize(
    ("status", "retryable"), [(404, False), (410, False), (403, False), (500, True), (503, True), (429, True)]
)
def test_a_status_says_whether_another_try_helps(httpserver: HTTPServer, status: int, retryable: bool) -> None:
    httpserver.expect_request("/a").respond_with_data(b"no", status=status)
    error = refusal(httpserver.url_for("/a"))
    assert (error.code, error.retryable) == (ErrorCode.MEDIA_FETCH_FAILED, retryable)
    assert str(status) in error.message


def test_a_refused_connection_is_worth_a_retry() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = refusal(f"http://127.0.0.1:{port}/")
    assert (error.code, error.retryable) == (ErrorCode.MEDIA_FETCH_FAILED, True)
    assert "connection refused" in error.message


def test_a_body_over_the_limit_is_refused_by_its_announced_length() -> None:
    with raw_server(lambda c: c.sendall(OK + b"Content-Length: 999999999999\r\n\r\n")) as url:
        assert refusal(url).code is ErrorCode.MEDIA_TOO_LARGE


def test_a_body_that_is_longer_than_announced_stays_within_the_limit() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(OK + b"Content-Length: 5\r\n\r\n" + b"x" * 100_000)

    with raw_server(talk) as url:
        assert len(get(url)[1]) == 5


def test_an_endless_body_without_a_length_is_cut_at_the_limit() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(OK + b"\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with raw_server(talk) as url:
        assert refusal(url, limit=10**6).code is ErrorCode.MEDIA_TOO_LARGE


def test_a_body_shorter_than_announced_is_a_failed_download() -> None:
    with raw_server(lambda c: c.sendall(OK + b"Content-Length: 100\r\n\r\nshort")) as url:
        error = refusal(url)
    assert (error.code, error.retryable) == (ErrorCode.MEDIA_FETCH_FAILED, True)


def test_a_gzip_bomb_is_counted_after_decompression(httpserver: HTTPServer) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    httpserver.expect_request("/a").respond_with_data(bomb, headers={"Content-Encoding": "gzip"})
    assert len(bomb) < 100_000
    assert refusal(httpserver.url_for("/a"), limit=1_000_000).code is ErrorCode.MEDIA_TOO_LARGE


def drip(prefix: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.sendall(prefix)
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    return talk


@pytest.mark.parametrize(
    "prefix",
    [
        OK + b"Content-Length: 900\r\n\r\n",
        OK + b"\r\n",
        OK + b"X-Slow: ",
        b"",
    ],
    ids=["body", "body without a length", "headers", "status line"],
)
def test_a_server_that_drips_is_cut_at_the_deadline(prefix: bytes) -> None:
    with raw_server(drip(prefix)) as url:
        started = time.monotonic()
        error = refusal(url, timeout_s=0.4)
    assert error.code is ErrorCode.MEDIA_TIMEOUT
    assert time.monotonic() - started < 3


def test_redirects_are_followed_up_to_three(httpserver: HTTPServer) -> None:
    for hop in range(4):
        httpserver.expect_request(f"/{hop}").respond_with_data(status=302, headers={"Location": f"/{hop + 1}"})
    httpserver.expect_request("/4").respond_with_data(b"there")
    assert get(httpserver.url_for("/1"))[1] == b"there"
    assert refusal(httpserver.url_for("/0")).code is ErrorCode.REDIRECT_REFUSED


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example.com/", "http://u:p@example.com/", "http://["])
def test_a_redirect_to_an_odd_url_is_refused(target: str) -> None:
    answer = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n".encode()
    with raw_server(lambda c: c.sendall(answer)) as url:
        assert refusal(url).code is ErrorCode.REDIRECT_REFUSED


def test_the_body_of_a_redirect_is_not_read(httpserver: HTTPServer) -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {httpserver.url_for('/b')}\r\n\r\n".encode())
        while True:
            connection.sendall(b"x" * 65536)

    httpserver.expect_request("/b").respond_with_data(b"there")
    with raw_server(talk) as url:
        assert get(url, timeout_s=5)[1] == b"there"


@dataclass
class Internet:
    """Names and what they resolve to, one answer after the other; and every address that was dialled."""

    names: dict[str, list[str]] = field(default_factory=dict)
    dialled: list[str] = field(default_factory=list)


@pytest.fixture
def internet(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Internet:
    """The test's server stands at a public address, port 80; everything else is dialled for real."""
    world = Internet({"public.example.com": [PUBLIC]})
    resolve, dial = socket.getaddrinfo, urllib3.util.connection.create_connection

    def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        answers = world.names.get(host)
        if answers:
            host = answers.pop(0) if len(answers) > 1 else answers[0]
        return resolve(host, port, *args, **kwargs)

    def create_connection(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        world.dialled.append(address[0])
        return dial((httpserver.host, httpserver.port) if address[0] == PUBLIC else address, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(urllib3.util.connection, "create_connection", create_connection)
    return world


def test_a_public_name_is_dialled_at_the_address_that_was_checked(httpserver: HTTPServer, internet: Internet) -> None:
    httpserver.expect_request("/a").respond_with_data(b"there")
    internet.names["public.example.com"] = [PUBLIC, "127.0.0.1"]
    assert get("http://public.example.com/a", allow_private=False)[1] == b"there"
    assert internet.dialled == [PUBLIC]
    assert httpserver.log[0][0].headers["Host"] == "public.example.com"


@pytest.mark.parametrize("inner", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "::1", "::127.0.0.1"])
def test_a_name_that_resolves_to_an_inner_address_is_blocked(internet: Internet, inner: str) -> None:
    internet.names["rebind.example.com"] = [inner]
    error = refusal("http://rebind.example.com/a", allow_private=False)
    assert error.code is ErrorCode.URL_BLOCKED
    assert inner not in error.message
    assert internet.dialled == []


@pytest.mark.parametrize("target", ["http://127.0.0.1/", "http://rebind.example.com/", "http://public.example.com:22/"])
def test_a_redirect_to_an_inner_place_is_refused(httpserver: HTTPServer, internet: Internet, target: str) -> None:
    internet.names["rebind.example.com"] = ["10.0.0.1"]
    httpserver.expect_request("/a").respond_with_data(status=307, headers={"Location": target})
    error = refusal("http://public.example.com/a", allow_private=False)
    assert error.code is ErrorCode.REDIRECT_REFUSED
    assert internet.dialled == [PUBLIC]


def deliver(url: str, *, timeout_s: float = 10, allow_private: bool = True) -> tuple[int, str]:
    headers = {"webhook-id": "1"}
    posted = post(
        url,
        body=b"{}",
        headers=headers,
        timeout_s=timeout_s,
        max_response_bytes=100,
        allow_private=allow_private,
    )
    return posted.status, posted.excerpt


def test_a_post_carries_body_and_headers_and_returns_the_answer(httpserver: HTTPServer) -> None:
    def answer(request: Request) -> Response:
        return Response(request.data + request.headers["webhook-id"].encode(), status=201)

    httpserver.expect_request("/hook", method="POST").respond_with_handler(answer)
    assert deliver(httpserver.url_for("/hook")) == (201, "{}1")


def test_a_post_follows_no_redirect_and_reads_no_more_than_it_needs(httpserver: HTTPServer) -> None:
    location = {"Location": "/elsewhere"}
    httpserver.expect_request("/hook").respond_with_data(b"x" * 10**6, status=302, headers=location)
    assert deliver(httpserver.url_for("/hook")) == (302, "x" * 100)
    assert len(httpserver.log) == 1


@pytest.mark.parametrize("prefix", [b"", OK, OK + b"X-Slow: "], ids=["status line", "first header", "header"])
def test_a_post_without_an_answer_ends_at_its_deadline_with_the_cause(prefix: bytes) -> None:
    with raw_server(drip(prefix)) as url, pytest.raises(OutboundError) as caught:
        deliver(url, timeout_s=0.3)
    assert str(caught.value) == "timed out after 0.3 s"


def test_a_post_whose_answer_never_ends_has_its_status() -> None:
    with raw_server(drip(OK + b"\r\n")) as url:
        assert deliver(url, timeout_s=0.4)[0] == 200


def test_a_post_to_an_inner_address_is_blocked(internet: Internet) -> None:
    internet.names["rebind.example.com"] = ["127.0.0.1"]
    with pytest.raises(VlmqError) as caught:
        deliver("http://rebind.example.com/hook", allow_private=False)
    assert caught.value.code is ErrorCode.URL_BLOCKED


def test_a_post_that_is_refused_or_unresolved_says_so_without_an_address(internet: Internet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(OutboundError) as refused:
        deliver(f"http://127.0.0.1:{port}/")
    assert str(refused.value) == "connection refused"
    with pytest.raises(OutboundError) as unresolved:
        deliver("http://no-such-name.invalid/", allow_private=False)
    assert str(unresolved.value) == "the host name could not be resolved"


def test_a_post_to_a_server_without_tls_says_so(httpserver: HTTPServer) -> None:
    with pytest.raises(OutboundError) as caught:
        deliver(f"https://127.0.0.1:{httpserver.port}/")
    assert str(caught.value) == "TLS failed"
