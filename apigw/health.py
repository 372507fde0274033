"""Health checks of targets: the periodic ones that take a dead target out of the rotation, and those of ``/ready``."""

from __future__ import annotations

from functools import partial
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.web.iweb import IAgent

from apigw.config.model import HealthCheck
from apigw.upstream import Target, Upstream
from apigw.wire.upstream_connection import UpstreamConnection


class Unhealthy(Exception):
    """A target did not pass its check."""


def ask(agent: IAgent, target: Target, check: HealthCheck) -> Deferred[None]:
    """Fires when the target answers its health check with a status below 400; fails with a sentence otherwise."""
    # A client of its own for each call: treq's keeps cookies.
    calling: Deferred[Any] = HTTPClient(agent).get(
        f"{target.name}{check.path}", headers={"user-agent": "apigw-health"}, allow_redirects=False, unbuffered=True
    )

    def answered(response: Any) -> None:
        response.original.abandon()
        if response.code >= 400:
            raise Unhealthy(f"answered its health check with {response.code}")

    return calling.addCallback(answered)


def dial(target: Target) -> Deferred[None]:
    """Fires when a TCP connection to the target can be made; it is closed, or kept for an exchange."""
    connection = target.pool.take()
    connecting: Deferred[UpstreamConnection] = target.pool.connect() if connection is None else Deferred()
    if connection is not None:
        connecting.callback(connection)
    return connecting.addCallback(lambda connection: target.pool.give_back(connection))


class HealthChecks:
    """The periodic checks of one upstream's targets. A target changes sides after so many equal results in a row."""

    def __init__(self, upstream: Upstream, check: HealthCheck, agent: IAgent, clock: Any) -> None:
        self._upstream = upstream
        self._check = check
        self._agent = agent
        self._clock = clock
        self._streaks: dict[Target, int] = dict.fromkeys(upstream.targets, 0)
        self._loops: list[LoopingCall] = []

    def start(self) -> None:
        for target in self._upstream.targets:
            loop = LoopingCall(self.probe, target)
            loop.clock = self._clock
            loop.start(self._check.interval)
            self._loops.append(loop)

    def stop(self) -> None:
        for loop in self._loops:
            loop.stop()
        self._loops.clear()

    def probe(self, target: Target) -> Deferred[bool]:
        """Check one target now. Fires with whether it passed."""
        probing: Deferred[Any] = ask(self._agent, target, self._check).addTimeout(self._check.timeout, self._clock)
        return probing.addCallbacks(lambda _: True, lambda _: False).addCallback(partial(self._count, target))

    def _count(self, target: Target, passed: bool) -> bool:
        streak = self._streaks[target]
        streak = max(streak, 0) + 1 if passed else min(streak, 0) - 1
        self._streaks[target] = streak
        if streak >= self._check.healthy_after:
            self._upstream.health_changed(target, True)
        elif -streak >= self._check.unhealthy_after:
            self._upstream.health_changed(target, False)
        return passed
