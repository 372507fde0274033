"""Fixtures: a Redis, the store of limits in it, and a page."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support import redis_server
from support.awaiting import wait_for
from twisted.internet import reactor

from apigw.config.model import Redis
from apigw.policy.limits.in_redis import RedisStore
from apigw.redis.link import RedisLink
from apigw.shared.page import Page


@pytest.fixture
def page() -> Iterator[Page]:
    """For two workers, the first of which is the test's process."""
    page = Page.make(2)
    page.become(0, 1)
    yield page
    page.close()


@pytest.fixture(scope="module")
def server() -> Iterator[redis_server.RedisServer]:
    with redis_server.running() as server:
        yield server


@pytest.fixture(scope="module")
def shared(server: redis_server.RedisServer) -> Iterator[RedisStore]:
    link = RedisLink(Redis(server.url, timeout=5), reactor)
    store = RedisStore(link, reactor, time.time)
    wait_for(link.start())
    assert store.up
    yield store
    wait_for(link.stop())
