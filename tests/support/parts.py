"""What a snapshot is compiled from, without sockets, and over a clock that stands still."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import evolve
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from apigw.config.model import Config
from apigw.contract.machine import Machine
from apigw.contract.policy import Context
from apigw.ops.audit_log import unaudited
from apigw.ops.metrics import Metrics
from apigw.policy.all import POLICIES
from apigw.process.snapshot import Parts
from apigw.proxy.body import WholeBodies
from apigw.proxy.held_body import Buffers
from apigw.upstream.build import build
from apigw.wire.agent import Agent
from apigw.wire.client_tls import ClientTLS
from apigw.wire.deadlines import Deadlines
from apigw.wire.fetch import Fetch


def context_of(config: Config, **others: Any) -> Context:
    """The context of a policy; ``others`` replace parts of it."""
    clock: Any = others.get("reactor") or Clock()
    deadlines = Deadlines(clock)
    agent = Agent(clock, deadlines, lambda host: ClientTLS().to(host))
    context = Context(
        reactor=clock,
        now=clock.seconds,
        config=config,
        deadlines=deadlines,
        metrics=Metrics(CollectorRegistry(), "0"),
        agent=agent,
        fetch=partial(Fetch, agent),
        bodies=WholeBodies(Buffers(0)),
        client_address=lambda request: b"",
        audit=unaudited,
        set_guard=lambda guard: None,
        may_write=lambda request: None,
        redis=None,
        machine=Machine(0),
    )
    return evolve(context, **others)


def parts_of(config: Config, **others: Any) -> Parts:
    """All policies, made with ``context_of``, and services that nothing is sent to."""
    context = context_of(config, **others)
    return Parts(
        build=lambda service: build(service, context.reactor, context.deadlines, context.metrics.service(service.name)),
        series=context.metrics.route,
        policies=[policy(context) for policy in POLICIES],
        deadlines=context.deadlines,
        buffers=Buffers(0),
    )
