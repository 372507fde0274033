"""Fixtures: a Redis, and the store of limits in it."""

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
