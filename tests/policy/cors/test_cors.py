"""What a page on another origin is allowed: the CORS protocol of the Fetch standard."""

from __future__ import annotations

import pytest

from apigw.policy.cors.cors import cors_headers, without_cors
from apigw.policy.cors.model import Cors
from apigw.wire.request import Request, Stream

APP = "https://app.example"


def asked(*headers: tuple[bytes, bytes]) -> Request:
    stream = Stream(b"192.0.2.1", False)
    return Request(stream, b"GET", b"/", b"/", b"", b"x", list(headers), b"HTTP/1.1", 0)


@pytest.mark.parametrize(
    ("cors", "origin", "allowed"),
    [
        (Cors((APP,)), APP, APP),
        (Cors((APP, "https://other.example")), "https://other.example", "https://other.example"),
        (Cors((APP,)), "https://evil.example", None),
        (Cors((APP,)), "https://app.example.evil.example", None),
        (Cors((APP,)), "https://app.example:443", None),
        (Cors((APP,)), "http://app.example", None),
        (Cors((APP,)), "null", None),
        (Cors((APP,)), "https://\xe9", None),
        (Cors((APP,)), None, None),
        (Cors(("*",)), "https://anyone.example", "*"),
        (Cors(("*",)), None, None),
    ],
)
def test_who_may_read_the_answer(cors: Cors, origin: str | None, allowed: str | None) -> None:
    """A page that was allowed cannot read the answer, or one that was not can."""
    request = asked() if origin is None else asked((b"origin", origin.encode("latin-1")))
    headers = dict(cors_headers(cors, request))
    assert headers.get(b"access-control-allow-origin") == (allowed and allowed.encode())
    # A cache must not give one origin's answer to another, also where there was none.
    assert (b"vary" in headers) == (cors.origins != ("*",))
    assert b"access-control-allow-credentials" not in headers


def test_credentials_only_where_they_are_configured() -> None:
    """A page acts with the cookies of its visitor although it may not, or may not although it should."""
    headers = dict(cors_headers(Cors((APP,), credentials=True), asked((b"origin", APP.encode()))))
    assert headers[b"access-control-allow-credentials"] == b"true"
    headers = dict(cors_headers(Cors((APP,), credentials=True), asked((b"origin", b"https://evil.example"))))
    assert headers == {b"vary": b"Origin"}


def test_the_services_own_permission_is_taken_out() -> None:
    """Two permissions in one answer are none for a browser; or a service allows what the gateway does not."""
    kept = [(b"access-control-expose-headers", b"x-a"), (b"vary", b"Accept")]
    sent = [(b"access-control-allow-origin", b"*"), (b"access-control-allow-credentials", b"true"), *kept]
    assert without_cors(sent) == kept
