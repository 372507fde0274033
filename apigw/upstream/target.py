# Compiled: see docs/decisions/compiled.md
"""A target: one address of a service, with its connections and health."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from apigw.config.model import Target as TargetConfig
from apigw.upstream.shared_target import SharedTarget
from apigw.wire.deadlines import NEVER
from apigw.wire.interfaces import Connections

FAILURES_IN_A_ROW = 3
ASIDE_FOR = 10.0
"""A target is ejected for so many seconds after so many failed connections in a row, if there is another one."""

log = Logger(namespace=__name__)


class Target:
    """One address of a service, with its pool of connections and its health.

    ``shared`` is what workers know of it together.
    """

    def __init__(self, config: TargetConfig, pool: Connections, shared: SharedTarget | None = None) -> None:
        self.deadline = NEVER
        self.config = config
        host = f"[{config.host}]" if ":" in config.host else config.host
        usual = config.port == (443 if config.scheme == "https" else 80)
        authority = host if usual else f"{host}:{config.port}"
        self.name = f"{config.scheme}://{authority}"
        self.authority = authority.encode("idna" if not host.isascii() else "ascii")
        self.pool = pool
        self.shared: SharedTarget | None = shared
        self.available = True
        """Whether it gets requests: it is neither unhealthy nor ejected."""
        self.healthy = True
        self._failures = 0
        self.set_aside: Callable[[Target], bool] = lambda _: False

    def connect_succeeded(self) -> None:
        self._failures = 0
        if self.shared is not None:
            self.shared.connect_succeeded()

    def connect_failed(self, service: str, why: str) -> None:
        """A connection could not be made. Only the first failure in a row is logged, not one for each request."""
        counted = 0 if self.shared is None else self.shared.connect_failed()
        self._failures = counted or self._failures + 1
        if self._failures == 1:
            log.warn("{service}: no connection to {target}: {why}", service=service, target=self.name, why=why)
        if self._failures % FAILURES_IN_A_ROW == 0:
            self.set_aside(self)

    def deadline_passed(self) -> None:
        """The time of its ejection is over."""
        self.deadline = NEVER
        self.connect_succeeded()  # as if: it gets another chance
        self.available = self.healthy
