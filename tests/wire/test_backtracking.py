"""Regular expressions that read bytes of strangers take a time that grows with their length and no faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from apigw.contract import peers
from apigw.ops import access_line
from apigw.policy.auth import bearer
from apigw.wire import headers, target
from apigw.wire.http1 import chunked, head, response

SIZE = 128 * 1024
MOST = 1.0
"""Seconds of CPU: what is linear takes some milliseconds, what is quadratic some minutes."""
CASES: list[tuple[Callable[..., Any], bytes, bytes]] = [
    (target._BROKEN_ESCAPE, b"%41", b""),
    (target._FORBIDDEN_ESCAPE, b"%4", b""),
    (target._AUTHORITY, b"%41a", b"\0"),
    (target._AUTHORITY, b"a:", b"\0"),
    (target._ABSOLUTE, b"http://a/?", b"\n"),
    (target._ABSOLUTE, b"/", b"\0"),
    (headers.TOKEN, b"a", b"\0"),
    (headers.FIELD_VALUE, b"a ", b" "),
    (headers.FIELD_VALUE, b" \t", b""),
    (headers.NO_LINE, b"\r\n", b""),
    (head._REQUEST_LINE, b"A", b" "),
    (head._REQUEST_LINE, b"A /a ", b"\0"),
    (chunked._SIZE_LINE, b"5;a=b", b"\0"),
    (chunked._SIZE_LINE, b'5;a="\\"', b"\0"),
    (chunked._SIZE_LINE, b"5;a", b"\0"),
    (chunked._TRAILER_LINE, b"a", b"\0"),
    (chunked._TRAILER_LINE, b"a:", b"\0"),
    (response._LATER_VERSION, b"HTTP/1.", b""),
    (bearer._FORM.fullmatch, b"a", b"\0"),
    (bearer._FORM.fullmatch, b"=", b"a"),
    (peers._PORT, b"1.", b":"),
    (peers._PORT, b"[::", b"]"),
    (access_line._USER.search, b"a://", b""),
    (access_line._SESSION.search, b";sess", b""),
    (access_line._LIKE_URL, b"%25", b""),
    (access_line._INNER_NAMES, b"?a", b""),
    (access_line._INNER_USER, b"//:", b""),
    (lambda data: access_line._INNER_USER(b"//" + data), b":", b""),
]


@pytest.mark.parametrize(("match", "piece", "end"), CASES, ids=map(str, range(len(CASES))))
def test_none_backtracks(match: Callable[..., Any], piece: bytes, end: bytes) -> None:
    """A line of 128 KiB that is nearly right is refused in no time."""
    data = piece[:1] + piece * (SIZE // len(piece)) + end
    before = time.process_time()
    match(data)
    match(piece * (SIZE // len(piece)) + end)
    assert time.process_time() - before < MOST
