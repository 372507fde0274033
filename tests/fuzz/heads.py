"""Connections of HTTP/1: what of the bytes of a client is a request."""

from __future__ import annotations

from zlib import crc32

from attrs import evolve
from functional.test_oracle import PIECES, mutated
from support.http1_server import Outcome, cut_at, exchange
from support.oracle import read_all

from apigw.proxy.headers import CopyRules, upstream_fields
from apigw.wire.headers import HOP_BY_HOP, Headers
from apigw.wire.http1.write_head import request_head
from apigw.wire.request import Request, Stream
from fuzz.target import Target

REFUSALS = {400, 405, 408, 413, 414, 431, 501}
"""What docs/reference/http.md says of what is no request."""
RULES = CopyRules()
SEEN_HERE = HOP_BY_HOP | {b"expect"}


def closed(outcome: Outcome) -> Outcome:
    """Who has sent more than was answered is closed by half, and no byte tells it (RFC 9112 §9.6): pieces decide it."""
    return evolve(outcome, end="closed") if outcome.end == "half-closed" else outcome


def check(data: bytes) -> None:
    """What is taken, a strict reader reads in the same way, in any pieces; what a service is sent, it reads as one."""
    outcome = closed(exchange([data]))
    places = [crc32(data) % (len(data) + 1), crc32(data[::-1]) % (len(data) + 1)]
    assert closed(exchange(cut_at(data, places))) == outcome, places
    assert set(outcome.statuses) <= REFUSALS | {200}
    complete, begun = read_all(data)
    taken = [request for request in outcome.requests if request[4] is not None]
    assert len(taken) <= len(complete)
    for (method, target, authority, fields, body), strict in zip(taken, complete, strict=False):
        assert (method, target, body) == (strict.method, strict.target, strict.body)
        assert authority in strict.values(b"host") or not strict.values(b"host")
        left = [(name.lower(), value) for name, value in strict.fields if name.lower() not in SEEN_HERE]
        assert set(fields) <= set(left)
        check_sent(method, target, authority, list(fields), body or b"")
    if len(outcome.requests) > len(taken):
        # Of the next one a part of the body has come, or what is wrong with it.
        assert begun is not None or len(complete) > len(taken)


def check_sent(method: bytes, target: bytes, authority: bytes, headers: Headers, body: bytes) -> None:
    stream = Stream(b"192.0.2.1", False)
    path, mark, query = target.partition(b"?")
    length = None if len(body) % 2 else len(body)
    request = Request(stream, method, target, path, mark + query, authority, headers, b"HTTP/1.1", length)
    fields = upstream_fields(request, False, b"id", (), RULES)
    sent = request_head(method, target, authority or b"a", fields, length, False)
    sent += body if length is not None else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    complete, begun = read_all(sent)
    assert [message.asks for message in complete] == [(method, target, body)]
    assert begun is None
    assert complete[0].values(b"x-forwarded-for") == [b"192.0.2.1"]


TARGET = Target("heads", check, mutated(), tuple(PIECES), base=60_000, slope=300)
