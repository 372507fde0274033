# Compiled: see docs/decisions/compiled.md
"""Answers that redirect."""

from __future__ import annotations

import re
from typing import final

from apigw import errors
from apigw.contract.exchange import Answer, Exchange, Outcome, Stage
from apigw.policy.transform.syntax import authority
from apigw.policy.transform.template import Template

_PORT = re.compile(rb":\d*\Z").sub


def _to(status: int, location: bytes) -> Answer:
    return Answer(status, [(b"location", location), (b"content-length", b"0")])


@final
class Redirected(Stage):
    """Answers every request with a redirect. ``host`` is the variable host of a URL, if it is variable."""

    def __init__(
        self, status: int, scheme: bytes, host: Template, path: Template, fragment: bytes, keeps_query: bool
    ) -> None:
        self._status = status
        self._scheme = scheme
        self._host = host
        self._path = path
        self._fragment = fragment
        self._keeps_query = keeps_query

    def run(self, exchange: Exchange) -> Outcome:
        location = self._path.text(exchange)
        if location is None:
            raise errors.BadRequest("The request lacks a part of the URL that it would be redirected to.")
        if self._scheme:
            host = self._host.text(exchange)
            if host is None or not authority(host):
                raise errors.BadRequest("The host of the URL that this request would be redirected to is malformed.")
            location = self._scheme + host + location
        elif location.startswith((b"//", b"/\\")):  # a browser would take what follows for a host
            raise errors.BadRequest("The path that this request would be redirected to begins with // or /\\.")
        if self._keeps_query:
            location += exchange.request.query
        return _to(self._status, location + self._fragment)


@final
class ToHttps(Stage):
    """Redirects requests that came neither by TLS nor by TLS to a trusted proxy. ``port`` is empty for the default."""

    def __init__(self, port: bytes) -> None:
        self._port = port

    def run(self, exchange: Exchange) -> Outcome:
        if exchange.is_https:
            return None
        request = exchange.request
        host = _PORT(b"", request.authority)
        if not host:
            raise errors.BadRequest("The request has no Host, so it cannot be redirected to https.")
        return _to(308, b"https://" + host + self._port + request.uri)
