"""Routes and services under maintenance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.routed import Routed, snapshot_of

from apigw.errors import Maintenance


@pytest.mark.parametrize(
    ("route", "service", "seconds"),
    [
        (True, False, b"60"),
        ({"retry_after": "5m"}, False, b"300"),
        (False, {"retry_after": "1500ms"}, b"2"),
        ({"retry_after": "5m"}, True, b"300"),
        (False, False, None),
    ],
)
def test_under_maintenance(tmp_path: Path, route: Any, service: Any, seconds: bytes | None) -> None:
    """Requests are 503 with Retry-After, before authentication; the route's word counts before its service's."""
    services = {"main": {"targets": ["http://127.0.0.1:9001"], "maintenance": service}}
    auth = {"jwt": [{"name": "main", "algorithm": "HS256", "secret": "0123456789abcdef0123456789abcdef"}]}
    ruled = {"path": "/a", "service": "main", "maintenance": route, "auth": "none" if seconds is None else "required"}
    made = Routed(tmp_path, ruled, services=services, auth=auth)
    exchange = made.exchange("/a")
    if seconds is None:
        assert made.walked(exchange) is None
        return
    with pytest.raises(Maintenance) as caught:
        made.walked(exchange)
    assert caught.value.headers == [(b"retry-after", seconds)]


def test_connections_of_a_service_stay(tmp_path: Path) -> None:
    """A service that comes under maintenance keeps its connections, and its circuit."""
    plain = Routed(tmp_path, {"path": "/a", "service": "main"})
    services = {"main": {"targets": ["http://127.0.0.1:9001"], "maintenance": True}}
    paused = Routed(tmp_path, {"path": "/a", "service": "main"}, services=services)
    assert snapshot_of(plain.config).upstreams.keys() == snapshot_of(paused.config).upstreams.keys()
