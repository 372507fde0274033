"""Connections to services are replaced under load, and no request notices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from support.daemon import gateway
from support.h2_service import H2Service
from support.services import Service

from .conftest import Start

REQUESTS, PER_CONNECTION, CLIENTS = 100, 10, 4


def test_no_request_is_lost_with_an_old_connection(start: Start) -> None:
    """Whatever the protocol, and whether or not the request could be repeated."""
    with closing(Service()) as one, closing(H2Service()) as two:
        bounds = {"max_connection_requests": PER_CONNECTION, "max_connection_age": "1s"}
        services = {
            "one": {"targets": [one.url], **bounds},
            "two": {"targets": [two.url], "protocol": "h2c", **bounds},
        }
        routes = [{"path": "/one/*", "service": "one"}, {"path": "/two/*", "service": "two"}]
        daemon = start(gateway(services=services, routes=routes))

        def ask(path: str) -> set[int]:
            with daemon.connect() as client:
                return {client.request("POST", path, body=b"x").status for _ in range(REQUESTS)}

        with ThreadPoolExecutor() as pool:
            for path in ("/one/a", "/two/a"):
                assert set().union(*pool.map(ask, [path] * CLIENTS)) == {200}
        least = REQUESTS * CLIENTS // PER_CONNECTION
        assert one.accepted >= least
        assert len(two.conversations) >= least
        assert (one.failures, two.failures) == ([], [])
