# Compiled: see docs/decisions/compiled.md
"""A target: one address of a service, with its connections, its health, and how it does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from apigw.config.model import Target as TargetConfig
from apigw.upstream.shared_target import SharedTarget
from apigw.upstream.standing import Standing
from apigw.wire.agent import Agent
from apigw.wire.deadlines import NEVER
from apigw.wire.interfaces import Connections

LEAST_SHARE: Final = 0.1
"""Of its requests that a target gets at the beginning of ``slow_start``, as with Envoy's ``min_weight_percent``."""

log = Logger(namespace=__name__)


class Owner(ABC):
    """Who decides what becomes of a target: the upstream."""

    seconds: Callable[[], float]

    @abstractmethod
    def failed_in_a_row(self, target: Target, times: int, why: str) -> None:
        """A target in use has failed, so often without a success in between; 0 if that is not known."""

    @abstractmethod
    def probed(self, target: Target, passed: bool, why: str) -> None:
        """A target that is ejected, or on probation, has answered, or failed to."""

    @abstractmethod
    def availability_changed(self) -> None:
        """A target has become available."""


class Target:
    """One address of a service, with its pool of connections and its health.

    ``standing`` decides about its ejection. ``shared`` is what workers know of it together.
    """

    def __init__(
        self,
        config: TargetConfig,
        pool: Connections,
        shared: SharedTarget | None = None,
        standing: Standing | None = None,
        agent: Agent | None = None,
    ) -> None:
        self.deadline = NEVER
        self.config = config
        self.weight = config.weight
        host = f"[{config.host}]" if ":" in config.host else config.host
        self.name = f"{config.scheme}://{_authority(config, host)}"
        """By its address, as in logs and metrics."""
        self.authority = _authority(config, config.called or host).encode("ascii")
        """The ``Host`` of its requests."""
        self.pool = pool
        self.agent: Agent | None = agent
        """For its health checks, if that of the service does not know the name that its certificate has."""
        self.standing = standing or Standing()
        self.shared: SharedTarget | None = shared
        self.available = True
        """Whether it may get requests: it is neither unhealthy nor ejected. On probation it may get one."""
        self.healthy = True
        self.ejected = False
        """Whether it is ejected, or on probation after that."""
        self.restrained = False
        """Whether ``admits`` must be asked before it gets a request: on probation, and during ``slow_start``."""
        self.busy = 0
        """Requests of this process that are in flight with it, where they are counted."""
        self.load = 0
        """Requests of all workers, as far as is known."""
        self.gone = False
        """Whether it is no longer one of the service's targets."""
        self.owner: Owner | None = None
        self._warm_at = 0.0
        self._slow_start = 0.0
        self._credit = 0.0

    @property
    def serves(self) -> bool:
        """Whether it is one of those that requests are shared out among."""
        return self.healthy and not self.ejected and self.weight > 0

    def succeeded(self) -> None:
        """It gave an answer that is no failure."""
        self.standing.succeeded()
        if self.ejected and self.owner is not None:
            self.owner.probed(self, True, "")

    def failed(self, why: str) -> int:
        """It could not be connected to, gave no valid answer in time, or an answer that says that it failed.

        The number of failures in a row; 0 if it is not known, or if it was ejected already.
        """
        owner = self.owner
        if not self.ejected:
            times = self.standing.failed()
            if owner is not None:
                owner.failed_in_a_row(self, times, why)
            return times
        if owner is not None:
            owner.probed(self, False, why)
        return 0

    def connect_failed(self, service: str, why: str) -> None:
        """A connection could not be made. Only the first failure in a row is logged, not one for each request."""
        if self.failed(f"no connection: {why}") == 1:
            log.warn("{service}: no connection to {target}: {why}", service=service, target=self.name, why=why)

    def warm_up(self, period: float, now: float) -> None:
        """Its share grows from ``LEAST_SHARE`` to all of it within ``period`` seconds."""
        if period:
            self._slow_start = period
            self._warm_at = now + period
            self._credit = 0.0
            self.restrained = True

    def admits(self) -> bool:
        """Whether a request may go to it although it is ``restrained``. If so, it must be sent there."""
        if self.owner is None:
            return True
        now = self.owner.seconds()
        if self.ejected:
            return self.standing.take_probe(now)
        left = self._warm_at - now
        if left <= 0:
            self.restrained = False
            return True
        self._credit += 1 - (1 - LEAST_SHARE) * left / self._slow_start
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def deadline_passed(self) -> None:
        """The time of its ejection is over: the next request is a probe."""
        self.deadline = NEVER
        self.restrained = True
        self.available = self.healthy
        if self.owner is not None:
            self.owner.availability_changed()


def _authority(config: TargetConfig, host: str) -> str:
    usual = config.port == (443 if config.scheme == "https" else 80)
    return host if usual else f"{host}:{config.port}"
