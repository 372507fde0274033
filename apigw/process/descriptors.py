"""The limit on open files, and the number of clients that it allows."""

from __future__ import annotations

import resource

from attrs import evolve
from twisted.logger import Logger

from apigw.wire.channel import Settings

SPARE = 256
"""Number of files for other purposes than clients: listeners, logs, the reactor, idle upstream connections."""

log = Logger()


class Descriptors:
    """Fits ``max_connections`` to the limit: two files for each client, and ``SPARE``."""

    def __init__(self) -> None:
        self._lowered: tuple[int, int] | None = None

    def fit(self, settings: Settings) -> Settings:
        """Raise the limit on open files. If that is refused, return settings with fewer connections, and log it."""
        wanted = 2 * settings.max_connections + SPARE
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft >= wanted or soft == resource.RLIM_INFINITY:
            return settings
        try:
            highest = hard if hard == resource.RLIM_INFINITY else max(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, highest))
            return settings
        except (OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        connections = min(settings.max_connections, max(16, (hard - SPARE) // 2))
        lowered = (settings.max_connections, connections)
        if connections < settings.max_connections and lowered != self._lowered:
            log.warn(
                "max_connections lowered from {wanted} to {have}: the process may open {files} files",
                wanted=settings.max_connections,
                have=connections,
                files=hard,
            )
        self._lowered = lowered
        return evolve(settings, max_connections=connections)
