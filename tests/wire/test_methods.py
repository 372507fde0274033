"""The methods that are taken: those of IANA's registry, and those of llhttp."""

from __future__ import annotations

import pytest
from httptools import HttpParserError, HttpRequestParser
from support.http1_server import exchange

from apigw.config.forms import METHODS as CONFIGURED
from apigw.wire.channel import Settings
from apigw.wire.methods import METHODS, OF_LLHTTP

REGISTRY = (
    b"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY"
    b" MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PROPFIND PROPPATCH PUT"
    b" QUERY REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL"
).split()
"""IANA's, as of October 2025, but for PRI."""
RTSP = {b"DESCRIBE", b"ANNOUNCE", b"SETUP", b"PLAY", b"PAUSE", b"TEARDOWN", b"RECORD", b"FLUSH", b"PRI"}


def llhttp_takes(method: bytes) -> bool:
    try:
        HttpRequestParser(object()).feed_data(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    except HttpParserError:
        return False
    return True


def test_the_whole_registry_is_taken() -> None:
    """A registered method is passed on, whether or not the parser knows it."""
    assert set(REGISTRY) <= METHODS


def test_what_the_parser_takes() -> None:
    """Which methods the parser reads by itself is known: an update of it may change that."""
    assert OF_LLHTTP - {b"CONNECT"} == {method for method in (METHODS | RTSP) - {b"CONNECT"} if llhttp_takes(method)}


def test_a_route_may_have_each_of_them() -> None:
    """What a route is configured for is what comes through, but for CONNECT."""
    assert {method.encode() for method in CONFIGURED} == METHODS - {b"CONNECT"}


@pytest.mark.parametrize("method", sorted(METHODS - {b"CONNECT"}))
def test_each_comes_through(method: bytes) -> None:
    """A request of each method reaches who is asked."""
    assert exchange([method + b" / HTTP/1.1\r\nHost: a\r\n\r\n"], Settings()).statuses == [200]
