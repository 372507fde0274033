"""What the admin listener answers. Each document is one object or list of them, named by what it is of."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from apigw.admin.circuits import Circuits
from apigw.admin.limits import Limits
from apigw.admin.status.facts import Facts
from apigw.admin.status.page import page
from apigw.contract.resource import Document
from apigw.ops.exposition import Exposition
from apigw.ops.metrics import Metrics
from apigw.ops.readiness import Readiness
from apigw.process.current import Current, Store
from apigw.proxy.resources import Health, MetricsPage, Ready


def admin_resources(
    clock: IReactorTime,
    current: Current,
    facts: Facts,
    readiness: Readiness,
    exposition: Exposition,
    store: Store,
    metrics: Metrics,
) -> dict[bytes, IResource]:
    """By path."""
    return {
        b"/health": Health(),
        b"/ready": Ready(readiness, True),
        b"/metrics": MetricsPage(exposition, lambda _: True),
        b"/status": Document(facts.status),
        **page(facts.page, clock),
        b"/limits": Limits(lambda: current.limits.limits, store, metrics),
        b"/circuits": Circuits(lambda: current.snapshot.upstreams.values(), lambda: current.snapshot.admin_token),
    }
