"""The limit on open files, and the number of clients that it allows."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from math import ceil

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

    def fit(self, most: int, services: Iterable[Service], workers: int = 1) -> int:
        """Raise the limit on open files for so many clients of all workers. If that is refused, return how many there
        may be, and say so once. Each worker has its share of them, as the load is even.

        Requests for which there are no files then get 503.
        """
        clients = ceil(most / workers)
        targets = sum(len(service.targets) * service.max_connections for service in services)
        upstreams = max(clients, ceil(targets / workers))
        wanted = clients + upstreams + SPARE
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft >= wanted or soft == resource.RLIM_INFINITY:
            return most
        try:
            highest = hard if hard == resource.RLIM_INFINITY else max(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, highest))
            return most
        except (OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        connections = min(most, max(16, (hard - SPARE) // 2) * workers)
        said = f"{'the process' if workers == 1 else 'a worker'} may open {hard} files, and may need {wanted}"
        if connections < most:
            said = f"max_connections lowered from {most} to {connections}: {said}"
        if self._speaks and said != self._said:
            log.warn("{said}; requests for which there is none are answered with 503", said=said)
        self._said = said
        return connections
