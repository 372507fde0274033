"""The resources of the admin listener."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from apigw.admin.circuits import Circuits
from apigw.admin.explain import Explain
from apigw.admin.status.facts import Facts
from apigw.admin.status.page import catalogue, page
from apigw.admin.writes import Writes
from apigw.contract.machine import Machine
from apigw.contract.policy import Prepared
from apigw.contract.resource import Document
from apigw.ops.audit_log import Audit
from apigw.ops.exposition import Exposition
from apigw.ops.readiness import Readiness
from apigw.process.current import Current
from apigw.proxy.resources import Health, MetricsPage, Ready


def own_resources(
    clock: IReactorTime,
    current: Current,
    facts: Facts,
    readiness: Readiness,
    exposition: Exposition,
    machine: Machine,
    writes: Writes,
    audit: Audit,
) -> dict[bytes, IResource]:
    """The gateway's own resources, by path. They exist in every configuration."""
    return {
        b"/health": Health(),
        b"/ready": Ready(readiness, True),
        b"/metrics": MetricsPage(exposition, lambda _: True),
        b"/status": Document(facts.status),
        **page(facts.page, lambda: catalogue(current.snapshot), clock),
        b"/explain": Explain(lambda: current.snapshot),
        b"/circuits": Circuits(
            lambda: current.snapshot.upstreams.values(),
            writes,
            machine,
            audit,
        ),
    }


def admin_resources(own: dict[bytes, IResource], policies: Iterable[Prepared]) -> dict[bytes, IResource]:
    """The gateway's own resources and those of the policies."""
    resources = {}
    for prepared in policies:
        for path, resource in prepared.admin_resources().items():
            resources[path.encode()] = resource
    return {**resources, **own}
