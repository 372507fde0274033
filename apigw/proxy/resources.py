"""Resources of the gateway itself: health, readiness, metrics, and those of policies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from apigw.contract.machine import Answer, Machine
from apigw.contract.peers import Peers
from apigw.contract.policy import Prepared
from apigw.contract.resource import Leaf, answer, respond, unless_cancelled
from apigw.errors import NotFound
from apigw.ops import totals
from apigw.ops.exposition import Exposition, Kept, Page
from apigw.ops.metrics import PROTOCOLS, Metrics
from apigw.ops.readiness import Readiness, Report
from apigw.proxy.held_body import Buffers
from apigw.proxy.pipeline import Pipeline
from apigw.wire.channel import ChannelFactory
from apigw.wire.web_request import WebRequest

OPEN = frozenset({b"/health", b"/ready"})
"""What load balancers ask for, which is told to everybody."""


def admit(request: WebRequest, peers: Peers, policies: Iterable[Prepared]) -> None:
    """Raises the refusal of a policy, for a client that may get nothing on the public listeners."""
    if request.path not in OPEN:
        address = peers.client_address(request.request)
        is_certain = peers.is_certain(address, request.request)
        for prepared in policies:
            prepared.admit(address, is_certain)


class Health(Leaf):
    """``/health``: liveness. Always 200."""

    def render_GET(self, request: WebRequest) -> int:
        return answer(request, 200, {"status": "ok"})


class Ready(Leaf):
    """``/ready``: readiness. ``detailed`` lists each check, for the admin listener only."""

    def __init__(self, readiness: Readiness, detailed: bool) -> None:
        super().__init__()
        self._readiness = readiness
        self._detailed = detailed

    def render_GET(self, request: WebRequest) -> int:
        def reported(report: Report) -> None:
            document: dict[str, object] = {"status": "ready" if report.ready else "not ready"}
            if self._detailed:
                document["checks"] = {**dict.fromkeys(report.passed, "ok"), **report.failed}
            if not request.finished:
                answer(request, 200 if report.ready else 503, document)

        self._readiness.report().addCallback(reported).addErrback(request.processingFailed)
        return NOT_DONE_YET


class MetricsPage(Leaf):
    """``/metrics``. 404 for clients that are not ``allowed``."""

    def __init__(self, exposition: Exposition, allowed: Callable[[WebRequest], bool]) -> None:
        super().__init__()
        self._exposition = exposition
        self._allowed = allowed

    def render_GET(self, request: WebRequest) -> int:
        if not self._allowed(request):
            raise NotFound("There is nothing here.")

        def rendered(page: Page) -> None:
            content_type, text = page
            if not request.finished:
                headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(text))]
                respond(request, 200, headers, text)

        accept = b",".join(value for name, value in request.headers if name == b"accept")
        asking = self._exposition.page(accept)
        request.notifyFinish().addErrback(lambda _: asking.cancel())
        asking.addCallback(rendered).addErrback(unless_cancelled, request)
        return NOT_DONE_YET


def public_resources(
    reserved: Iterable[str],
    readiness: Readiness,
    exposition: Exposition,
    may_scrape: Callable[[WebRequest], bool],
    policies: Iterable[Prepared],
) -> dict[bytes, IResource]:
    """The resources of the ``reserved`` paths on the public listeners.

    ``/metrics`` is 404 for requests that ``may_scrape`` refuses.
    """
    resources: dict[str, IResource] = {
        "/health": Health(),
        "/ready": Ready(readiness, False),
        "/metrics": MetricsPage(exposition, may_scrape),
    }
    for prepared in policies:
        resources.update(prepared.resources())
    return {path.encode(): resources[path] for path in reserved}


SAID_FOR = 0.5
"""Seconds for which a worker repeats its answer to ``metrics``: each of the others may ask once a second."""


def metrics_page(
    machine: Machine,
    metrics: Metrics,
    measure: Callable[[], None],
    in_thread: Callable[..., Deferred[Any]],
    clock: IReactorTime,
) -> Callable[[bool], Deferred[Page]]:
    """Makes ``/metrics`` for all workers. ``measure()`` is called in a thread before metrics are read."""

    def render(openmetrics: bool) -> Page:
        measure()
        return metrics.render(openmetrics)

    def say() -> str:
        measure()
        return totals.packed(metrics, machine.index, counts=machine.counted())

    def add_up(answers: list[Answer], openmetrics: bool) -> Deferred[Page]:
        living = [answer.value for answer in answers if answer.worker >= 0]
        dead = [answer.value for answer in answers if answer.worker < 0]
        return in_thread(totals.page, living, dead, openmetrics)

    if machine.workers == 1:
        return partial(in_thread, render)
    said = Kept(partial(in_thread, say), clock, SAID_FOR)
    machine.answers("metrics", lambda _: said.get())
    return lambda openmetrics: machine.ask("metrics").addCallback(add_up, openmetrics)


def measure(metrics: Metrics, pipeline: Pipeline, channels: ChannelFactory, buffers: Buffers) -> None:
    """Set the gauges to what is there at this moment. For use in a thread."""
    metrics.in_flight = pipeline.in_flight
    metrics.buffered = buffers.used
    count = Counter(channel.version for channel in list(channels.channels))
    for protocol in PROTOCOLS:
        metrics.connections(protocol).set(count[protocol])
