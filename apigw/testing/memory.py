"""A gateway in memory: the parts of the program that process requests, on a network and a clock in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import time as unix_time
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import formatEventAsClassicLogText, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers

from apigw import __version__
from apigw.config.load import load
from apigw.contract.machine import Machine
from apigw.contract.policy import Context
from apigw.ops.audit_log import unaudited
from apigw.ops.metrics import Metrics
from apigw.policy.all import POLICIES
from apigw.process.rules import RULES
from apigw.process.snapshot import Parts, compile
from apigw.proxy.accounting import Accounting
from apigw.proxy.body import WholeBodies
from apigw.proxy.held_body import Buffers
from apigw.proxy.pipeline import Pipeline
from apigw.proxy.site import Site, refusal_answer
from apigw.testing.gateway import Answer, Gateway, document_of, environ_of, named, scripts_of, write
from apigw.testing.network import Network, Time
from apigw.testing.services import Received, Reply, Script, Service
from apigw.upstream.build import build
from apigw.wire.agent import Agent
from apigw.wire.calls import WholeBody
from apigw.wire.channel import ChannelFactory, Settings
from apigw.wire.client_tls import ClientTLS
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.fetch import Fetch
from apigw.wire.request import Request

PATIENCE = 600.0
"""Seconds of the clock that an answer may take."""
TURNS = 100_000
"""Calls that may be made meanwhile: more of them are an endless loop."""


class InMemory(Gateway):
    """Raises ``ConfigError`` for a configuration that cannot be used."""

    def __init__(
        self,
        directory: Path,
        beside: Path,
        plugins: Any,
        services: Mapping[str, Script] | None = None,
        use: Sequence[str] | None = None,
        routes: Sequence[Mapping[str, Any]] | None = None,
        **more: Any,
    ) -> None:
        self._lines: list[str] = []
        observer: Any = self._logged
        self._observer = observer
        globalLogPublisher.addObserver(observer)
        try:
            self._begin(directory, named(plugins, beside), services, use, routes, more)
        except BaseException:
            globalLogPublisher.removeObserver(observer)
            raise

    def _begin(
        self,
        directory: Path,
        plugins: Mapping[str, Any],
        services: Mapping[str, Script] | None,
        use: Sequence[str] | None,
        routes: Sequence[Mapping[str, Any]] | None,
        more: Mapping[str, Any],
    ) -> None:
        self.time = time = Time()
        self._began = unix_time()  # so that credentials which a test has made are valid
        self._network = network = Network(time)
        deadlines = Deadlines(time)
        self.services = {}
        for name, script in scripts_of(services).items():
            service = Service(name, script, 0)
            service.port = network.listen(_serving(deadlines, service, self._now))
            self.services[name] = service
        write(directory, document_of(self.services, plugins, use, routes, more))
        config = load(str(directory), environ_of(self.services), RULES)
        metrics = Metrics(CollectorRegistry(), __version__)
        agent = Agent(time, deadlines, lambda host: ClientTLS().to(host), make_endpoint=network.endpoint)
        buffers = Buffers(config.gateway.max_buffered)

        def client_address(request: Request) -> bytes:
            return pipeline.table.peers.client_address(request)

        context = Context(
            reactor=time,
            now=self._now,
            config=config,
            deadlines=deadlines,
            metrics=metrics,
            agent=agent,
            fetch=partial(Fetch, agent),
            bodies=WholeBodies(buffers),
            client_address=client_address,
            redis=None,
            machine=Machine(),
            audit=unaudited,
            set_guard=lambda guard: setattr(pipeline, "guard", guard),
            may_write=lambda request: None,
        )
        self._policies = [policy(context) for policy in POLICIES]
        parts = Parts(
            build=lambda service: build(
                service, time, deadlines, metrics.service(service.name), make_endpoint=network.endpoint
            ),
            series=metrics.route,
            policies=self._policies,
            deadlines=deadlines,
            buffers=buffers,
        )
        snapshot = compile(config, None, parts)
        accounting = Accounting(metrics, None, time.seconds, self._now)
        site = Site(accounting.resource_ended, time.seconds, client_address)
        pipeline = Pipeline(snapshot.table, time.seconds, accounting.exchange_ended, site.on_request)
        refuse = partial(refusal_answer, accounting.refused)
        self._port = network.listen(
            ChannelFactory(snapshot.settings, deadlines, pipeline.on_request, refuse, self._now)
        )
        self._deadlines = deadlines
        self._client = Agent(time, deadlines, lambda host: ClientTLS().to(host), make_endpoint=network.endpoint)
        deadlines.start()
        for policy in self._policies:
            policy.start()
        for prepared in snapshot.prepared.values():
            prepared.adopt(prepared)
        for prepared in snapshot.prepared.values():
            prepared.keep_series()
        for upstream in snapshot.upstreams.values():
            upstream.start()
        self.metrics = metrics

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        fields = Headers({name: [value] for name, value in headers.items()})
        uri = f"http://127.0.0.1:{self._port}{path}".encode()
        response = self._wait(self._client.request(method.encode(), uri, fields, WholeBody(body) if body else None))
        content = self._wait(_content(response))
        pairs = tuple(
            (name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape"))
            for name, values in response.headers.getAllRawHeaders()
            for value in values
        )
        return Answer(response.code, pairs, content)

    def advance(self, seconds: float) -> None:
        until = self.time.seconds() + seconds
        while self.time.next_event(until - self.time.seconds()):
            pass
        self.time.advance(max(0.0, until - self.time.seconds()))

    @property
    def log(self) -> str:
        return "\n".join(self._lines)

    def close(self) -> None:
        for policy in reversed(self._policies):
            policy.stop()
        self._deadlines.stop()
        globalLogPublisher.removeObserver(self._observer)

    def _now(self) -> float:
        return self._began + self.time.seconds()

    def _logged(self, event: Any) -> None:
        self._lines.append(formatEventAsClassicLogText(event) or "")

    def _wait(self, deferred: Deferred[Any]) -> Any:
        """What it fires with; time goes on meanwhile. Raises what it fails with."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        until = self.time.seconds() + PATIENCE
        for _ in range(TURNS):
            if results:
                break
            if not self.time.next_event(until - self.time.seconds()):
                raise AssertionError(f"there is no answer within {PATIENCE:g} s")
        else:
            raise AssertionError("there is no answer, and the gateway does not rest")
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result


class _Collected(Protocol):
    def __init__(self) -> None:
        self.content: Deferred[bytes] = Deferred()
        self._pieces: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(ResponseDone):
            self.content.callback(b"".join(self._pieces))
        else:
            self.content.errback(ConnectionError("the answer was cut short"))


def _content(response: Any) -> Deferred[bytes]:
    collected = _Collected()
    response.deliverBody(collected)
    return collected.content


class _Listening:
    """Reads the body of a request to a scripted service, and answers."""

    def __init__(self, request: Request, service: Service) -> None:
        self._request = request
        self._service = service
        self._body = b""

    def body_received(self, data: bytes) -> None:
        self._body += data

    def body_finished(self) -> None:
        request = self._request
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers)
        host = ("host", request.authority.decode("latin-1"))
        received = Received(request.method.decode(), request.uri.decode("latin-1"), (host, *headers), self._body)
        answer(request, self._service.reply(received))

    def client_failed(self, error: Refused | ClientLost) -> None: ...


def answer(request: Request, reply: Reply) -> None:
    content = reply.content
    fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
    if reply.status not in (204, 304):
        fields.append((b"content-length", b"%d" % len(content)))
    request.respond(reply.status, fields, content)


def _serving(deadlines: Deadlines, service: Service, now: Callable[[], float]) -> ChannelFactory:
    def on_request(request: Request) -> None:
        request.listener = _Listening(request, service)
        request.read_body()

    refuse: Callable[..., Any] = partial(refusal_answer, lambda *_: None)
    return ChannelFactory(Settings(), deadlines, on_request, refuse, now)
