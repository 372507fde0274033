# Compiled: see docs/decisions/compiled.md
"""What the policy does with requests and answers."""

from __future__ import annotations

from typing import Any, cast, final

from apigw import errors
from apigw.contract.exchange import DROPPED, Exchange, Head, Hook, Outcome, Stage
from apigw.policy.transform.fields import Fields
from apigw.policy.transform.syntax import authority
from apigw.policy.transform.template import Template
from apigw.wire.errors import Refused
from apigw.wire.headers import first
from apigw.wire.target import check_target

PREFIX = b"x-forwarded-prefix"

ADDED = b"via"
"""The field that every answer of a service gets from the gateway and that rules may remove. Others are
``Exchange.added``, or of hooks."""


class Path:
    """A rule that gives the service another path."""

    def write(self, exchange: Exchange) -> None:
        """Set ``exchange.target``. Raises ``BadRequest``."""
        raise NotImplementedError


@final
class WithoutPrefix(Path):
    """Removes the first raw segments of the path (``strip_prefix``)."""

    def __init__(self, segments: int) -> None:
        self._segments = segments

    def write(self, exchange: Exchange) -> None:
        request = exchange.request
        path = request.path
        after = self._segments + 1
        pieces = path.split(b"/", after)
        if len(pieces) == after:
            prefix, rest = path, b"/"
        else:
            rest = b"/" + pieces[after]
            prefix = path[: len(path) - len(rest)]
        exchange.target = rest + request.query
        _tell(exchange, prefix)


@final
class Rewritten(Path):
    """Writes the path anew. The client's query stays, unless ``has_query``. ``keeps``: see ``check_target``."""

    def __init__(self, template: Template, has_query: bool, keeps: int) -> None:
        self._template = template
        self._has_query = has_query
        self._keeps = keeps

    def write(self, exchange: Exchange) -> None:
        request = exchange.request
        target = self._template.text(exchange)
        if target is None:
            raise errors.BadRequest("The request lacks a part of the path that the service would get.")
        if not self._has_query:
            target += request.query
        try:
            path = check_target(target, self._keeps)[0]
        except Refused:
            raise errors.BadRequest("The path that the service would get is ambiguous.") from None
        exchange.target = target
        before = request.path
        if len(path) < len(before) and before.endswith(path):
            _tell(exchange, before[: len(before) - len(path)])


def _tell(exchange: Exchange, prefix: bytes) -> None:
    """Tell the service what was removed from the beginning of the path, behind what a trusted proxy has removed."""
    request, peers = exchange.request, exchange.peers
    if peers.some and peers.trusts(request.stream.peer):
        prefix = (first(request.headers, PREFIX) or b"") + prefix
    exchange.sent = [*exchange.sent, (PREFIX, prefix)]


@final
class ToService(Stage):
    """Changes the request that the service gets: its path, its host, its fields.

    ``dropped`` are names of the answer's fields that are removed. Those of the service are so in the pass that is made
    over them anyway; ``ToClient`` removes those of the gateway.
    """

    def __init__(
        self,
        path: Path | None,
        host: Template | None,
        fields: Fields,
        withheld: frozenset[bytes],
        dropped: frozenset[bytes],
    ) -> None:
        self._path = path
        self._host = host
        self._fields = fields if fields else None
        self._withheld = withheld
        self._dropped = dropped if dropped else None
        self._before: frozenset[bytes] = DROPPED
        self._after = DROPPED | dropped

    def run(self, exchange: Exchange) -> Outcome:
        if self._path is not None:
            self._path.write(exchange)
        if self._host is not None:
            host = self._host.text(exchange)
            if host is None or not authority(host):
                raise errors.BadRequest("The host that the service would get is malformed.")
            exchange.authority = host
        fields = self._fields
        if fields is not None:
            if fields.same is not None and not exchange.sent:
                exchange.sent = fields.same
            else:
                sent = list(exchange.sent)
                fields.write(exchange, sent, True)
                exchange.sent = sent
        if self._withheld:
            exchange.withheld = exchange.withheld | self._withheld
        if self._dropped is not None:
            if exchange.dropped is not self._before:  # there are hardly two
                self._before = exchange.dropped
                self._after = self._before | self._dropped
            exchange.dropped = self._after
        return None


@final
class ToClient(Hook):
    """Changes the fields of every answer, the gateway's own included. ``removed`` are names in lower case."""

    def __init__(self, fields: Fields, removed: frozenset[bytes]) -> None:
        self._fields = fields
        self._removed = removed
        self._of_gateway = ADDED in removed

    def run(self, exchange: Exchange, head: Head) -> None:
        headers = cast("list[Any]", head.headers)  # compiled, pairs would be taken apart and made anew
        # What the service has sent is without ``removed`` already, and the list is the answer's own.
        whole = head.own or self._of_gateway or bool(exchange.added) or exchange.route.hooks[0] is not self
        if whole:
            removed = self._removed
            headers = [header for header in headers if header[0] not in removed]
        fields = self._fields
        if fields.same is not None:
            headers += fields.same
        else:
            fields.write(exchange, headers, False)
        if whole:
            head.headers = headers
