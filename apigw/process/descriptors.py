"""How many files the process may open, and how many clients that is enough for."""

from __future__ import annotations

import resource
from collections.abc import Iterable

from attrs import evolve
from twisted.logger import Logger

from apigw.config.model import Service
from apigw.wire.channel import Settings

SPARE = 256
"""Files that are open for other reasons than an exchange: listeners, logs, the reactor, health checks."""

log = Logger()


class Descriptors:
    """One file for each client of ``max_connections``, as many for the services, and some more.

    To the services there may be more connections than clients, as one client of HTTP/2 has many requests under way: as
    many as all targets together may have. Tunnels, which do not count there, have a client each.
    """

    def __init__(self) -> None:
        self._said = ""

    def fit(self, settings: Settings, services: Iterable[Service]) -> Settings:
        """Raise the limit on open files as far as they need, or where that is not allowed, lower them. Says so once.

        What the limit is too low for then is answered with 503.
        """
        clients = settings.max_connections
        upstreams = max(clients, sum(len(service.targets) * service.max_connections for service in services))
        wanted = clients + upstreams + SPARE
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft >= wanted or soft == resource.RLIM_INFINITY:
            return settings
        try:
            highest = hard if hard == resource.RLIM_INFINITY else max(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, highest))
            return settings
        except (OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        connections = min(clients, max(16, (hard - SPARE) // 2))
        said = f"the process may open {hard} files, and may need {wanted}"
        if connections < clients:
            said = f"max_connections lowered from {clients} to {connections}: {said}"
        if said != self._said:
            log.warn("{said}; requests for which there is none are answered with 503", said=said)
        self._said = said
        return evolve(settings, max_connections=connections)
