"""The plugins that come with the gateway, in front of a service."""

from __future__ import annotations

import json
import zlib
from threading import Event

import brotli
import pytest
import zstandard
from support.client import PATIENCE, Answer, encode
from support.daemon import Daemon, gateway
from support.h2_client import H2Client
from support.services import Received, Service

from .conftest import Start

TEXT = b"to be or not to be, that is the question\n" * 4000
"""Several pieces."""
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service) -> Daemon:
    compression = "apigw.plugins.compression:Compression"
    plugins = {
        "small": {"policy": compression, "with": {"least": 10}},
        "gzip": {"policy": compression, "with": {"codings": ["gzip"], "types": ["text/plain"]}},
        "order": {
            "policy": "apigw.plugins.json_schema:JSONSchema",
            "with": {
                "size": "100KiB",
                "schema": {"required": ["id"], "properties": {"id": {"type": "integer"}, "tags": {"type": "array"}}},
            },
        },
    }
    routes = [
        {"path": "/small", "service": "main", "use": ["small"]},
        {"path": "/gzip", "service": "main", "use": ["gzip"]},
        {"path": "/both", "service": "main", "use": ["order", "small"]},
        {"path": "/orders", "service": "main", "use": ["order"]},
    ]
    return in_front({**gateway(services={"main": module_service.url}, routes=routes), "plugins": plugins})


def decoded(answer: Answer) -> bytes:
    coding = answer.get("content-encoding")
    if coding == "gzip":
        return zlib.decompress(answer.body, 16 + zlib.MAX_WBITS)
    if coding == "br":
        return bytes(brotli.decompress(answer.body))
    if coding == "zstd":
        return bytes(zstandard.ZstdDecompressor().decompressobj().decompress(answer.body))
    return answer.body


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("body", [TEXT, TEXT[:60]], ids=["large", "small"])
def test_answers_are_compressed(daemon: Daemon, service: Service, coding: str, body: bytes) -> None:
    """In the coding that the client names; caches are told, and what holds for the bytes as they were is removed."""
    headers = ("Content-Type: text/plain; charset=utf-8", 'ETag: "v1"', "Accept-Ranges: bytes", "Content-MD5: x")
    service.behave = lambda received: received.conversation.answer(200, *headers, body=body)
    answer = daemon.get("/small", f"Accept-Encoding: {coding}")
    assert (answer.status, answer.get("content-encoding"), decoded(answer)) == (200, coding, body)
    assert (answer.get("vary"), answer.get("etag")) == ("Accept-Encoding", 'W/"v1"')
    assert [answer.get(name) for name in ("accept-ranges", "content-md5")] == [None, None]
    assert len(answer.body) < max(len(body) / 10, 61)
    plain = daemon.get("/small")
    assert (plain.body, plain.get("content-encoding"), plain.get("vary")) == (body, None, "Accept-Encoding")
    assert (plain.get("etag"), plain.get("content-length")) == ('"v1"', str(len(body)))


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, ("Content-Type: image/png",)),
        (200, ("Content-Type: text/event-stream",)),
        (200, ()),
        (200, ("Content-Type: text/plain", "Content-Encoding: br")),
        (200, ("Content-Type: text/plain", "Cache-Control: public, No-Transform")),
        (206, ("Content-Type: text/plain", "Content-Range: bytes 0-9/1000")),
    ],
)
def test_what_stays_as_it_is(daemon: Daemon, service: Service, status: int, headers: tuple[str, ...]) -> None:
    """Answers that gain nothing, are encoded already, must not be changed, or are parts; with their length."""
    service.behave = lambda received: received.conversation.answer(status, *headers, body=TEXT)
    answer = daemon.get("/small", "Accept-Encoding: gzip, br, zstd")
    assert (answer.status, answer.body, answer.get("content-length")) == (status, TEXT, str(len(TEXT)))
    assert answer.get("vary") is None


def test_an_answer_without_a_body_has_no_coding(daemon: Daemon, service: Service) -> None:
    """Nothing is no stream of any coding, so it is not called one, also where the service sends it in chunks."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    service.behave = lambda received: received.conversation.send(head + b"0\r\n\r\n")
    answer = daemon.get("/small", "Accept-Encoding: gzip")
    assert (answer.body, answer.get("content-encoding"), answer.get("content-length")) == (b"", None, "0")


def test_small_answers_and_heads(daemon: Daemon, service: Service) -> None:
    """Less than `least` stays as it is; an answer to HEAD, and one without a body, too."""
    service.behave = lambda received: received.conversation.answer(200, "Content-Type: text/plain", body=b"x" * 1023)
    assert daemon.get("/gzip", "Accept-Encoding: gzip").get("content-encoding") is None
    service.behave = lambda received: received.conversation.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5000\r\n\r\n"
    )
    head = daemon.request("HEAD", "/gzip", "Accept-Encoding: gzip")
    assert (head.get("content-encoding"), head.get("content-length")) == (None, "5000")
    service.behave = lambda received: received.conversation.send(b'HTTP/1.1 304 Not Modified\r\nETag: "v"\r\n\r\n')
    assert daemon.get("/gzip", "Accept-Encoding: gzip").get("etag") == '"v"'


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_small_pieces_that_come_together(daemon: Daemon, service: Service, coding: str) -> None:
    """They are compressed together, and not each by itself, which would make the answer longer, and take seconds."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    service.behave = lambda received: received.conversation.send(head + b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n")
    answer = daemon.get("/small", f"Accept-Encoding: {coding}")
    assert decoded(answer) == b"a" * 10_000
    assert len(answer.body) < 1000


def test_streams_do_not_wait(daemon: Daemon, service: Service) -> None:
    """A piece of an answer can be decoded as soon as the service has sent it."""
    seen = Event()

    def behave(received: Received) -> None:
        conversation = received.conversation
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
        conversation.send(b"5\r\nfirst\r\n")
        assert seen.wait(PATIENCE)
        conversation.send(b"6\r\nsecond\r\n0\r\n\r\n")

    service.behave = behave
    with daemon.connect() as client:
        client.send(encode("GET", "/gzip", "Accept-Encoding: gzip"))
        assert client.head().get("content-encoding") == "gzip"
        decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        got = b""
        while got != b"first":
            got += decoder.decompress(client.chunk() or b"")
        seen.set()
        while (chunk := client.chunk()) is not None:
            got += decoder.decompress(chunk)
        assert (got, decoder.eof) == (b"firstsecond", True)


def test_valid_bodies(daemon: Daemon, service: Service) -> None:
    """They reach the service as they were sent, small and large, over both versions of HTTP; and so does no body."""
    small = b'{"id": 1, "other": [1.0]}\n'
    large = json.dumps({"id": 7, "tags": list(range(15_000))}).encode()
    service.behave = lambda received: received.conversation.answer(200, body=received.body())
    for body in (small, large):
        assert daemon.request("POST", "/orders", JSON, body=body).body == body
    assert daemon.request("POST", "/orders", "Content-Type: application/vnd.a+json; v=1", body=small).status == 200
    assert daemon.get("/orders").status == 200
    with H2Client(daemon.address) as client:
        assert client.request("POST", "/orders", ("content-type", "application/json"), body=small).body == small
    assert len(service.requests) == 5


def test_bodies_that_are_refused(daemon: Daemon, service: Service) -> None:
    """Each with a status and a code of its own; the service sees none of them, and the next request is served."""
    for status, code, headers, body in [
        (415, "unsupported_media_type", ("Content-Type: text/plain",), b'{"id": 1}'),
        (415, "unsupported_media_type", (), b'{"id": 1}'),
        (415, "unsupported_media_type", (JSON, "Content-Encoding: gzip"), b'{"id": 1}'),
        (415, "unsupported_media_type", (), b""),
        (400, "malformed_body", (JSON,), b""),
        (400, "malformed_body", (JSON,), b'{"id": 1, "id": "x"}'),
        (413, "body_too_large", (JSON,), b" " * 110_000),
        (422, "invalid_body", (JSON,), b'{"id": "secret", "tags": {}}'),
    ]:
        answer = daemon.request("POST", "/orders", *headers, body=body)
        assert (answer.status, answer.json["code"]) == (status, code)
        assert answer.get("content-type") == "application/problem+json"
        assert answer.json["request_id"] == answer.get("x-request-id")
        assert b"secret" not in answer.body
    assert sorted(each["pointer"] for each in answer.json["errors"]) == ["#/id", "#/tags"]
    assert service.requests == []
    assert daemon.request("POST", "/both", JSON, "Accept-Encoding: gzip", body=b'{"id": 1}').status == 200
