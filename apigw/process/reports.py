"""What a configuration in use means for this machine, as the log says it once."""

from __future__ import annotations

from twisted.logger import Logger

from apigw import __version__, is_compiled
from apigw.config.model import Config, Path
from apigw.config.units import counted
from apigw.process.descriptors import Descriptors

MOST_WARNINGS = 100
"""Warnings of one configuration that are logged: one may be of each of thousands of routes."""

log = Logger()


class Reports:
    """``speaks``: whether the log of this process has them; of several workers the master speaks."""

    def __init__(self, speaks: bool, workers: int = 1) -> None:
        self._speaks = speaks
        self._workers = workers
        self._descriptors = Descriptors(speaks)
        self._warned: frozenset[tuple[Path, str]] = frozenset()

    def started(self, config: Config) -> None:
        if self._speaks:
            log.info(
                "apigw {version}, {kind}: {routes} to {services}",
                version=__version__,
                kind="compiled" if is_compiled() else "not compiled",
                routes=counted(len(config.routes), "route"),
                services=counted(len(config.services), "service"),
            )

    def in_use(self, config: Config) -> int:
        """Another configuration is in use. Returns how many connections of clients there may be.

        Its warnings are logged but for those that the last one had already, wherever they stand now.
        """
        connections = self._descriptors.fit(config.gateway.max_connections, config.services, self._workers)
        if self._speaks:
            new = [each for each in config.warnings if (each.path, each.sentence) not in self._warned]
            for warning in new[:MOST_WARNINGS]:
                log.warn("{warning}", warning=str(warning))
            if len(new) > MOST_WARNINGS:
                log.warn("{more} more warnings, which `apigw check` names", more=len(new) - MOST_WARNINGS)
            self._warned = frozenset((warning.path, warning.sentence) for warning in config.warnings)
        return connections
