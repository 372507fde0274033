"""What is particular to limits in Redis, with a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import redis_server
from support.awaiting import wait_for, waiting
from support.limits import NOON, limit
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock

import apigw
from apigw.config.model import Redis
from apigw.policy.limits.in_redis import RedisStore
from apigw.policy.limits.keys import scope_key
from apigw.redis.link import RedisLink


@waiting
def test_checks_of_one_turn_travel_in_one_call(shared: RedisStore, server: redis_server.RedisServer) -> None:
    """Under load the cost of a call to Redis is shared."""
    one = limit(40)
    server("FLUSHALL")
    server("CONFIG", "RESETSTAT")
    answers = wait_for(gatherResults([shared.check([(one, b"someone")]) for _ in range(50)]))
    assert [d.allowed for d in answers] == [True] * 40 + [False] * 10
    assert b"cmdstat_evalsha:calls=1," in server("INFO", "commandstats")


@waiting
def test_each_is_told_although_another_fails(shared: RedisStore, server: redis_server.RedisServer) -> None:
    """Checks that travel together are answered one by one, and none of them is counted here as well."""
    server("FLUSHALL")
    one = limit(5)
    told: list[object] = []

    def fail(outcome: object) -> None:
        told.append(outcome)
        raise RuntimeError("broken")

    shared.ask([(one, b"first")], fail)
    assert wait_for(shared.check([(one, b"second")])).remaining == 4
    assert len(told) == 1
    assert len(shared) == 0


@waiting
def test_the_clock_is_the_servers(server: redis_server.RedisServer) -> None:
    """A gateway whose own clock is an hour off counts in the same windows as the others."""
    seconds = int(server("TIME")[0])

    late = Clock()
    late.advance(seconds - 3600)
    link = RedisLink(Redis(server.url, timeout=5), reactor, late)
    store = RedisStore(link, reactor, late.seconds, clock=late)
    wait_for(link.start())
    decision = wait_for(store.check([(limit(3, 60), b"someone")]))
    wait_for(link.stop())
    assert seconds + 60 <= decision.reset <= seconds + 80


@waiting
@pytest.mark.parametrize("algorithm", ["log", "counter"])
def test_keys_expire_and_tell_nothing(shared: RedisStore, server: redis_server.RedisServer, algorithm: str) -> None:
    """Redis fills up neither with old keys nor with addresses that are somebody's."""
    server("FLUSHALL")
    name = scope_key("user", "main", "alice@example.com", "192.0.2.1")
    wait_for(shared.check([(limit(3, 60, algorithm), name)]))
    (stored,) = server("KEYS", "*")
    assert stored.startswith(b"apigw:limit:1:")
    assert len(stored) == 46
    assert b"alice" not in stored
    assert 59_000 <= server("PTTL", stored) <= (60_000 if algorithm == "log" else 120_000)


@waiting
def test_a_log_holds_no_more_than_its_window(shared: RedisStore, server: redis_server.RedisServer) -> None:
    """A key that is always in use does not grow."""
    server("FLUSHALL")
    checks = [(limit(10, 60), b"someone")]
    for at in range(200):
        wait_for(shared.check(checks, NOON + at * 7))
    (stored,) = server("KEYS", "*")
    assert server("LLEN", stored) <= 10


PROCESS = """
import sys
import time
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from apigw.config.model import Redis
from apigw.policy.limits.model import RateLimit
from apigw.policy.limits.arithmetic import compile_limit
from apigw.policy.limits.in_redis import RedisStore
from apigw.redis.link import RedisLink

url, number, algorithm = sys.argv[1], int(sys.argv[2]), sys.argv[3]
one = compile_limit(RateLimit("/", number, 1_000_000, algorithm, "closed", scope="endpoint"))
link = RedisLink(Redis(url, timeout=30), reactor)
store = RedisStore(link, reactor, time.time)

async def main():
    await link.start()
    print("ready", flush=True)
    sys.stdin.readline()
    passed = 0
    for _ in range(number // 20):
        answers = await gatherResults([store.check([(one, b"")]) for _ in range(20)])
        passed += sum(decision.allowed for decision in answers)
    print(passed, flush=True)
    await link.stop()
    reactor.stop()

from twisted.internet.defer import ensureDeferred
from twisted.python.log import err
reactor.callWhenRunning(lambda: ensureDeferred(main()).addErrback(err))
reactor.run()
"""


@pytest.mark.parametrize(("number", "algorithm"), [(1_000, "log"), (2_000, "counter")])
def test_four_processes_share_one_limit_exactly(number: int, algorithm: str) -> None:
    """However many gateways there are, the limit passes: not one request more, and none fewer."""
    with redis_server.running() as server:
        words = [sys.executable, "-c", PROCESS, server.url, str(number), algorithm]
        pipe = subprocess.PIPE
        place = {**os.environ, "PYTHONPATH": str(Path(apigw.__file__).parent.parent)}
        processes = [subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=place) for _ in range(4)]
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            passed = [int(process.communicate(timeout=60)[0]) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        assert sum(passed) == number
        assert sum(count > 0 for count in passed) > 1
