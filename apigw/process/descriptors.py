"""The limit on open files, and the number of clients that it allows."""

from __future__ import annotations

import resource
from collections.abc import Iterable

from twisted.logger import Logger

from apigw.config.model import Service

SPARE = 256
"""Number of files for other purposes than exchanges: listeners, logs, the reactor, health checks."""

log = Logger()


class Descriptors:
    """Fits ``max_connections`` to the limit: one file for each client, as many for the services, and ``SPARE``.

    There may be more connections to services than clients, because a client of HTTP/2 has many requests at a time: up
    to the ``max_connections`` of all targets. Tunnels are not counted there, and have a client each.
    """

    def __init__(self, speaks: bool) -> None:
        self._speaks = speaks
        self._said = ""

    def fit(self, clients: int, services: Iterable[Service]) -> int:
        """Raise the limit on open files for so many clients. If that is refused, return how many there may be, and say
        so once.

        Requests for which there are no files then get 503.
        """
        upstreams = max(clients, sum(len(service.targets) * service.max_connections for service in services))
        wanted = clients + upstreams + SPARE
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft >= wanted or soft == resource.RLIM_INFINITY:
            return clients
        try:
            highest = hard if hard == resource.RLIM_INFINITY else max(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, highest))
            return clients
        except (OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        connections = min(clients, max(16, (hard - SPARE) // 2))
        said = f"the process may open {hard} files, and may need {wanted}"
        if connections < clients:
            said = f"max_connections lowered from {clients} to {connections}: {said}"
        if self._speaks and said != self._said:
            log.warn("{said}; requests for which there is none are answered with 503", said=said)
        self._said = said
        return connections
