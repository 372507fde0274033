"""One route from its YAML to what a service, or a client, gets: read, checked, compiled, and walked without sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from apigw.config.load import load
from apigw.config.model import Config
from apigw.contract.exchange import Answer, Driver, Exchange, Head, Outcome
from apigw.contract.principal import Principal
from apigw.ops.metrics import Metrics
from apigw.process.rules import RULES
from apigw.process.snapshot import Snapshot, compile
from apigw.proxy.forward import Connect, HoldBody
from apigw.proxy.headers import upstream_fields
from apigw.wire.headers import Headers
from apigw.wire.request import Request, Stream
from support.parts import parts_of


class Peer(Stream):
    """The connection, as far as stages look at it."""

    def __init__(self, secure: bool) -> None:
        super().__init__(b"192.0.2.1", secure)


def snapshot_of(config: Config) -> Snapshot:
    return compile(config, None, parts_of(config))


class Routed:
    """A gateway with these routes, and with the service ``main``. ``sections`` are the other ones."""

    def __init__(self, directory: Path, *routes: dict[str, Any], **sections: Any) -> None:
        document = {"services": {"main": {"targets": ["http://127.0.0.1:9001"]}}, "routes": routes, **sections}
        (directory / "gateway.yaml").write_text(json.dumps(document))
        self.config = load(str(directory), {}, RULES)
        self.metrics = Metrics(CollectorRegistry(), "0")
        self.snapshot = compile(self.config, None, parts_of(self.config, metrics=self.metrics))
        self.table = self.snapshot.table

    def exchange(
        self,
        target: str,
        *headers: tuple[bytes, bytes],
        principal: Principal | None = None,
        host: bytes = b"shop.example:8080",
        method: bytes = b"GET",
        secure: bool = False,
    ) -> Exchange:
        """An exchange at its beginning. ``principal`` is who calls; authentication is not run then."""
        stream = Peer(secure)
        uri = target.encode("latin-1")
        path, mark, query = uri.partition(b"?")
        request = Request(stream, method, uri, path, mark + query, host, list(headers), b"HTTP/1.1", 0)
        exchange = Exchange(Driver(), request, self.table.peers, 0.0)
        match = self.table.router.match(method, path, host, request.headers, request.query)
        exchange.route = self.table.otherwise(request) if match is None else match.value
        exchange.principal = principal
        return exchange

    def walked(self, exchange: Exchange) -> Outcome:
        """The outcome of its stages: None where it would be sent to a service."""
        for stage in exchange.route.stages:
            if isinstance(stage, HoldBody | Connect):
                return None
            outcome = stage.run(exchange)
            if outcome is not None:
                return outcome
        return None

    def sent(self, exchange: Exchange) -> Headers:
        """The fields that the service gets, after the stages."""
        assert self.walked(exchange) is None
        (hold,) = [stage for stage in exchange.route.stages if isinstance(stage, HoldBody)]
        request, peers = exchange.request, exchange.peers
        trusted = peers.trusts(request.stream.peer)
        own = () if exchange.principal is None else exchange.principal.fields
        copied = hold.destination.copied
        return upstream_fields(request, trusted, exchange.id, own, copied, exchange.withheld, exchange.sent)

    def answered(self, exchange: Exchange, *headers: tuple[bytes, bytes], own: bool = False) -> Headers:
        """The fields that the client gets of an answer with these: of the service's, after its stages, or the gateway's
        ``own``."""
        if not own:
            self.sent(exchange)
        head = Head(200, [field for field in headers if own or field[0] not in exchange.dropped], own)
        for hook in exchange.route.hooks:
            hook.run(exchange, head)
        return head.headers

    def answer(self, exchange: Exchange) -> Answer:
        """The gateway's own answer, after the stages."""
        outcome = self.walked(exchange)
        assert isinstance(outcome, Answer)
        return outcome
