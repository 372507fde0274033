"""How many files are asked for, and what is done where there are not so many."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from apigw.config.model import Service, Target
from apigw.process.descriptors import SPARE, Descriptors

TARGETS = (Target("http", "a", 80), Target("http", "b", 80))


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("clients", "services", "files"),
    [
        (100, (), 200),
        (100, (Service("a", TARGETS, max_connections=10),), 200),
        (100, (Service("a", TARGETS, max_connections=300), Service("b", TARGETS[:1], max_connections=50)), 750),
    ],
)
def test_there_is_a_file_for_each_connection(clients: int, services: tuple[Service, ...], files: int) -> None:
    """Of clients, and of services, of which one client of HTTP/2 may use many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    assert Descriptors(speaks=True).fit(clients, services) == clients
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == files + SPARE
