# Compiled: see docs/decisions/compiled.md
"""A service in the program (``Upstream``): its targets, and their ejection and health."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from apigw.config.model import Ejection, Service
from apigw.config.model import Target as TargetConfig
from apigw.errors import NoHealthyTarget
from apigw.ops.series import ServiceSeries
from apigw.upstream.admission import Admission
from apigw.upstream.balancing import Balancer
from apigw.upstream.circuit import Circuit
from apigw.upstream.retries import Retries
from apigw.upstream.shared_target import SharedTarget
from apigw.upstream.target import Owner, Target
from apigw.wire.agent import Agent
from apigw.wire.deadlines import NEVER, Deadlines

COUNTS_EVERY: Final = 0.01
"""Seconds after which the requests of other workers are counted again."""
COUNTS_EACH: Final = 0.0002
"""Seconds in addition for each target, so that counting takes less than a hundredth of the time."""

log = Logger(namespace=__name__)


class Upstream(Owner):
    """A service: its targets, and what they share. ``replace_targets`` changes the targets."""

    def __init__(
        self,
        service: Service,
        make_target: Callable[[TargetConfig], Target],
        balancer: Balancer,
        deadlines: Deadlines,
        agent: Agent,
        circuit: Circuit | None,
        series: ServiceSeries,
        retries: Retries | None = None,
        admission: Admission | None = None,
    ) -> None:
        self.admission: Admission | None = admission
        """Of ``max_requests``, if there is one."""
        self.service = service
        self.retries: Retries | None = retries
        self.circuit = circuit
        self.series = series
        self.name = service.name
        self.agent = agent
        """For health checks. Its connections are separate from those of exchanges."""
        self.targets: tuple[Target, ...] = ()
        self._retired: list[Target] = []
        """Those that are no longer targets, while they have exchanges."""
        self.targets_changed: Callable[[], None] | None = None
        """Set by the health checks, if the service has them."""
        self._make_target = make_target
        self.balancer = balancer
        self.counts: bool = balancer.counts
        """Whether ``begin`` and ``end`` must be called."""
        self.amended = 0
        """Exchanges under way that ``failover.instead`` has sent to another target."""
        self._deadlines = deadlines
        self.seconds: Callable[[], float] = deadlines.seconds
        self._slow_start = service.slow_start or 0.0
        self._running = False
        self._counted_at = 0.0
        self._shares = False
        known = [target for target in service.targets if not target.lookup]
        self.resolving = not known
        """Whether there are no targets yet, because their names have not been looked up."""
        self._awaiting: list[Deferred[None]] = []
        self.replace_targets(known)

    def start(self) -> None:
        self.series.circuit_is("closed" if self.circuit is None else str(self.circuit.status().state))
        self._running = True
        for target in self.targets:
            self._deadlines.watch(target)
            self.series.target_is(target.name, target.serves)
        self.look()

    def close(self) -> None:
        """Close the connections: idle ones now, the others when their exchanges end."""
        if self.circuit is not None:
            self.circuit.stop()
        self._running = False
        for target in self.targets:
            self._retire(target)
        self.agent.close()

    def replace_targets(self, configs: Iterable[TargetConfig]) -> None:
        """Set the targets. Exchanges with removed targets continue to their end.

        An address that was there before keeps its connections and health, and gets its new weight. ``slow_start`` is
        for those that join others.
        """
        left = {address_of(target.config): target for target in self.targets}
        joins = bool(left)
        targets = []
        for config in configs:
            target = left.pop(address_of(config), None)
            if target is None:
                target = self._make_target(config)
                target.owner = self
                if joins:
                    target.warm_up(self._slow_start, self.seconds())
                if self._running:
                    self._deadlines.watch(target)
                    self.series.target_is(target.name, target.serves)
            else:
                target.config = config
                target.weight = config.weight
            targets.append(target)
        self.targets = tuple(targets)
        self._shares = self.counts and any(target.shared is not None for target in targets)
        self.balancer.use(self.targets)
        for target in left.values():
            self._retire(target)
        self.balancer.load = sum([target.load for target in targets])
        if self.targets_changed is not None:
            self.targets_changed()

    def _retire(self, target: Target) -> None:
        target.gone = True
        self._deadlines.forget(target)
        self.series.target_gone(target.name)
        target.pool.close()
        if target.agent is not None:
            target.agent.close()
        if target.shared is not None:
            self._retired.append(target)

    # Of each exchange.

    def choose(self, key: bytes = b"", exclude: tuple[Target, ...] = ()) -> Target | None:
        """The target of an exchange; None if none is available that is not in ``exclude``.

        ``key`` is that of the exchange, for ``balance: hash`` (``proxy.destination.Destination.key``). A target that is
        chosen must be tried: it may be on probation.
        """
        if self._shares:
            self._count_others()
        return self.balancer.choose(key, exclude)

    def names_known(self) -> None:
        """There are targets, or the lookups of their names have ended without any."""
        self.resolving = False
        while self._awaiting:  # what one does may cancel others
            self._awaiting.pop(0).callback(None)

    def when_resolved(self) -> Deferred[None]:
        """While ``resolving``: fires at its end. Fails with ``NoHealthyTarget`` after ``connect_timeout``."""
        resolved: Deferred[None] = Deferred(self._awaiting.remove)
        self._awaiting.append(resolved)
        return resolved.addTimeout(self.service.connect_timeout, self._deadlines.clock, self._not_resolved)

    def _not_resolved(self, result: object, timeout: float) -> None:
        raise self.none_healthy()

    def none_healthy(self) -> NoHealthyTarget:
        """The error for an exchange if no target is available."""
        return NoHealthyTarget(f"No target of the service {self.name} is healthy.")

    def has_other(self, target: Target) -> bool:
        return any(other.serves for other in self.targets if other is not target)

    def begin(self, target: Target) -> None:
        """An exchange with ``target`` begins: it waits for a connection, or has one."""
        target.busy += 1
        target.load += 1
        self.balancer.load += 1
        if target.shared is not None:
            target.shared.begins(1)

    def end(self, target: Target) -> None:
        """An exchange has ended, in any way. Call it once for each ``begin``, also if the target is gone meanwhile."""
        target.busy -= 1
        target.load -= 1
        if not target.gone:
            self.balancer.load -= 1
        if target.shared is not None:
            target.shared.begins(-1)

    def _count_others(self) -> None:
        """Add what is in flight from other workers. Between two such looks this worker sees its own changes."""
        now = self.seconds()
        if now < self._counted_at:
            return
        self._counted_at = now + max(COUNTS_EVERY, COUNTS_EACH * len(self.targets))
        load = 0
        for target in self.targets:
            shared = target.shared
            target.load = target.busy + (0 if shared is None else shared.busy_elsewhere)
            load += target.load
        self.balancer.load = load

    # What becomes of targets.

    def look(self) -> None:
        """Notice what other workers have found out. Called twice a second if there are others."""
        if self.circuit is not None:
            self.circuit.look()
        self.keep()
        for target in self.targets:
            if target.shared is not None:
                self._look_at(target, target.shared)

    def keep(self) -> bool:
        """Keep the cells to which exchanges may write from becoming others'. Whether removed targets have some still.

        Called twice a second if there are other workers. To the cell of a circuit that was stopped nobody writes.
        """
        now = self.seconds()
        if self.retries is not None:
            self.retries.budget.used(now)
        if self.admission is not None:
            self.admission.used(now)
        self._retired = [target for target in self._retired if target.pool.connections]
        for target in self._retired:
            if target.shared is not None:
                target.shared.used(now)
        return bool(self._retired)

    def _look_at(self, target: Target, shared: SharedTarget) -> None:
        now = self.seconds()
        shared.used(now)
        target.pool.give_way()
        if shared.healthy != target.healthy:
            self._be(target, shared.healthy)
        until = target.standing.until
        if not until:
            if target.ejected:
                self._use_again(target)
        # Two workers may have ejected one each, of the last two.
        elif target.ejected or self.has_other(target):
            self._leave_out(target, until)

    def failed_in_a_row(self, target: Target, times: int, why: str) -> None:
        ejection = self.service.ejection
        if target.gone or ejection is None or times < ejection.failures or not self._may_eject(target, ejection):
            return
        now = self.seconds()
        until = target.standing.eject(now)
        if until <= now:  # the lock of the page could not be had; the next failure tries again
            return
        self._leave_out(target, until)
        self._ejected(target, f"{times} failures in a row, the last: {why}", until - now)

    def _may_eject(self, target: Target, ejection: Ejection) -> bool:
        """Whether there are not too many already, and one stays."""
        targets = [each for each in self.targets if each.weight]
        out = [each for each in targets if each.standing.until]
        return len(out) + 1 <= int(ejection.most * len(targets)) and self.has_other(target)

    def probed(self, target: Target, passed: bool, why: str) -> None:
        now = self.seconds()
        standing = target.standing
        if target.gone or standing.until > now:
            return  # else it was sent before the ejection
        if not standing.until:  # another worker's probe has passed, and this one was sent before
            self._use_again(target)
            if not passed:
                target.failed(why)
            return
        if passed:
            standing.readmit()
            self._use_again(target)
            log.info("{service}: {target} is used again", service=self.name, target=target.name)
            return
        until = standing.eject(now)
        self._leave_out(target, until)
        if until > now:
            self._ejected(target, f"it has failed again: {why}", until - now)

    def _ejected(self, target: Target, why: str, seconds: float) -> None:
        self.series.ejected()
        log.warn(
            "{service}: {target} ejected for {seconds:g} s: {why}",
            service=self.name,
            target=target.name,
            seconds=round(seconds, 3),
            why=why,
        )

    def _leave_out(self, target: Target, until: float) -> None:
        """It is ejected, or on probation if ``until`` is in the past."""
        if not target.ejected:
            target.ejected = True
            self.series.target_is(target.name, False)
        if until > self.seconds():
            target.available = False
            target.deadline = until
            self.balancer.changed()
        elif not target.restrained or target.deadline != NEVER:
            target.deadline_passed()

    def _use_again(self, target: Target) -> None:
        target.ejected = False
        target.restrained = False
        target.deadline = NEVER
        target.available = target.healthy
        target.warm_up(self._slow_start, self.seconds())
        self.series.target_is(target.name, target.serves)
        self.balancer.changed()

    def health_changed(self, target: Target, healthy: bool, why: str = "") -> None:
        """The result of the health checks has changed, or was confirmed. ``why``: the reason of the last failure."""
        if target.healthy != healthy and not target.gone:
            target.standing.readmit()
            self._be(target, healthy)
            log.warn(
                "{service}: {target} is {state}",
                service=self.name,
                target=target.name,
                state="healthy again" if healthy else f"unhealthy: {why}",
            )

    def _be(self, target: Target, healthy: bool) -> None:
        target.healthy = healthy
        self._use_again(target)

    def availability_changed(self) -> None:
        self.balancer.changed()


def address_of(config: TargetConfig) -> tuple[str, str, int, str]:
    """What tells a target from others."""
    return config.scheme, config.host, config.port, config.called
