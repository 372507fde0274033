"""What becomes of limits while Redis is gone, slow, full or strange; with a real server, and time injected."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from cryptography import x509
from support import limits, redis_server
from support.awaiting import until, wait_for, waiting
from support.certificates import Authority
from support.logged import logged
from support.redis_peer import RedisPeer
from support.redis_server import RedisServer
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock, deferLater

from apigw.config.model import Redis
from apigw.errors import LimitsUnavailable
from apigw.policy.limits.arithmetic import Checks, Decision, Limit
from apigw.policy.limits.in_redis import Outcome, Pending, RedisStore
from apigw.redis.link import RedisLink

TIMEOUT = 0.1


def limit(number: int = 3, policy: str = "local", **rest: str) -> Limit:
    return limits.limit(number, 600.0, on_store_failure=policy, **rest)


class Store:
    """Real sockets, but the time is the test's. Remembers what it told."""

    def __init__(self, url: str, **config: Any) -> None:
        self.time = Clock()
        self.told: list[bool] = []
        self.fallbacks = 0
        settings = Redis(url, **{"timeout": TIMEOUT, **config})
        self.link = link = RedisLink(settings, reactor, self.time)
        self._store = RedisStore(link, reactor, self.time.seconds, self.told.append, self.count, clock=self.time)

    def start(self) -> Any:
        self._store.start()
        return self.link.start()

    def stop(self) -> Any:
        self._store.stop()
        return self.link.stop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def count(self) -> None:
        self.fallbacks += 1

    def ask_then(self, checks: Checks, then: Callable[[Outcome], object]) -> Any:
        return self._store.ask(checks, then)

    def ask(self, *limits: Limit) -> Any:
        return wait_for(self.check([(one, b"someone") for one in limits]))

    def second(self) -> None:
        """Let one pass, and see the probe through, if there was one."""
        self.time.advance(1)
        until(lambda: self.link._attempt is None)

    def until_up(self) -> None:
        for _ in range(60):
            if self.up:
                return
            self.second()
        raise AssertionError("Redis did not come back")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server.running() as server:
        yield server


@pytest.fixture
def open_store() -> Iterator[Callable[..., Store]]:
    opened = []

    def open_store(url: str, **config: Any) -> Store:
        store = Store(url, **config)
        opened.append(store)
        wait_for(store.start())
        return store

    yield open_store
    for store in opened:
        wait_for(store.stop())
        assert not store.time.getDelayedCalls()


Open = Callable[..., Store]


@waiting
def test_killed_and_started_again(server: RedisServer, open_store: Open) -> None:
    """Callers notice nothing when Redis dies, and the limits are shared again once it is back."""
    store, one = open_store(server.url), limit(3)
    assert store.ask(one).remaining == 2
    server.kill()
    until(lambda: not store.up)
    assert [store.ask(one).allowed for _ in range(4)] == [True, True, True, False]
    assert store.fallbacks == 4
    store.second()
    assert not store.up
    server.start()
    store.until_up()
    assert store.ask(one).remaining == 2
    assert store.fallbacks == 4
    assert store.told == [True, False, True]


@waiting
def test_absent_from_the_start(open_store: Open) -> None:
    """The gateway starts without Redis, and finds it when it comes."""
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(directory)
        store = open_store(server.url)
        assert not store.up
        assert store.ask(limit()).remaining == 2
        server.start()
        try:
            store.until_up()
            assert store.told == [False, True]
        finally:
            server.kill()


@waiting
def test_each_limit_fails_as_it_was_told(open_store: Open) -> None:
    """`local` counts here, `open` lets through, `closed` is a 503; together the strictest wins."""
    store = open_store(f"redis://127.0.0.1:{redis_server.free_port()}")
    local, opened, closed = limit(1, endpoint="/a"), limit(1, "open", endpoint="/b"), limit(1, "closed", endpoint="/c")
    assert [store.ask(opened) for _ in range(3)] == [None, None, None]
    with pytest.raises(LimitsUnavailable) as caught:
        store.ask(local, opened, closed)
    assert caught.value.status == 503
    assert store.ask(local, opened).limit is local
    assert not store.ask(local, opened).allowed
    assert store.fallbacks == 6


@waiting
@pytest.mark.parametrize("policy", ["local", "open", "closed"])
def test_what_comes_before_redis_is_connected_waits_for_it(server: RedisServer, policy: str) -> None:
    """In the first milliseconds of a process no limit fails: it is counted in Redis."""
    store = Store(server.url)
    started = store.start()
    answer = store.check([(limit(3, policy), b"someone")])
    told: list[Any] = []
    asked = store.ask_then([(limit(3, policy), b"someone")], told.append)
    assert isinstance(asked, Pending)
    wait_for(started)
    assert wait_for(answer).remaining == 2
    until(lambda: told)
    assert told[0].remaining == 1
    assert store.fallbacks == 0
    wait_for(store.stop())


@waiting
def test_what_comes_before_redis_is_known_to_be_gone_waits_for_that() -> None:
    """And then each limit does what it was told."""
    store = Store(f"redis://127.0.0.1:{redis_server.free_port()}")
    started = store.start()
    local, closed = store.check([(limit(), b"x")]), store.check([(limit(3, "closed", endpoint="/c"), b"x")])
    wait_for(started)
    assert wait_for(local).remaining == 2
    with pytest.raises(LimitsUnavailable):
        wait_for(closed)
    wait_for(store.stop())


@waiting
def test_paused_answers_wait_no_longer_than_the_timeout(server: RedisServer, open_store: Open) -> None:
    """A Redis that hangs delays a request by the timeout; after three it is left alone, and nothing piles up."""
    store, one = open_store(server.url), limit(1_000)
    server.pause()
    for failures in range(3):
        assert store.up
        waiting_answer: Deferred[Any] = store.check([(one, b"x")])
        wait_for(deferLater(reactor, 0))
        store.time.advance(TIMEOUT - 0.001)
        wait_for(deferLater(reactor, 0.01))
        assert not waiting_answer.called
        store.time.advance(0.001)
        assert wait_for(waiting_answer).remaining == 999 - failures
    assert not store.up
    for _ in range(500):
        assert store.check([(one, b"x")]).called
    assert not store._waiting
    assert not store.link._calls
    server.resume()
    store.until_up()
    before = store.fallbacks
    assert store.ask(one).allowed
    assert store.fallbacks == before


@waiting
def test_a_pause_fails_all_that_wait_at_once(server: RedisServer, open_store: Open) -> None:
    """With many requests in flight, the first three that are late free all the others."""
    store, one = open_store(server.url), limit(1_000)
    server.pause()
    answers = []
    for _ in range(50):
        answers.append(store.check([(one, b"x")]))
        wait_for(deferLater(reactor, 0))
    store.time.advance(TIMEOUT)
    until(lambda: all(answer.called for answer in answers))
    assert not store.up
    server.resume()


@waiting
def test_an_answer_that_came_while_the_gateway_was_busy_is_in_time(server: RedisServer, open_store: Open) -> None:
    """A pause of the gateway itself is not taken for one of Redis."""
    store, one = open_store(server.url), limit()
    server.pause()
    answer = store.check([(one, b"someone")])
    wait_for(deferLater(reactor, 0.01))
    server.resume()
    redis_server.wait_until(lambda: server("KEYS", "apigw:limit:1:????????????????????????????????"))
    store.time.advance(10)
    assert wait_for(answer).allowed
    assert store.fallbacks == 0


@waiting
def test_answers_that_come_too_late_are_not_mixed_up(server: RedisServer, open_store: Open) -> None:
    """After a short pause each caller still gets his own answer."""
    store, one, other = open_store(server.url), limit(1_000), limit(7, endpoint="/other")
    server.pause()
    late = store.check([(one, b"x")])
    wait_for(deferLater(reactor, 0))
    store.time.advance(TIMEOUT)
    assert wait_for(late).limit is one
    server.resume()
    assert store.ask(other) == Decision(True, other, 6, store.ask(other).reset, 0)
    assert store.up


@waiting
def test_full(server: RedisServer, open_store: Open) -> None:
    """A Redis that answers but cannot write is not used, until it can."""
    store, one = open_store(server.url), limit(100)
    server("CONFIG", "SET", "maxmemory", "1")
    assert [store.ask(one).remaining for _ in range(5)] == [99, 98, 97, 96, 95]
    assert not store.up
    store.second()
    assert not store.up
    server("CONFIG", "SET", "maxmemory", "0")
    store.until_up()
    assert store.ask(one).remaining == 99


@waiting
def test_flushed(server: RedisServer, open_store: Open) -> None:
    """Counts that are lost begin anew, and a script that is lost is sent again: nobody sees either."""
    store, one = open_store(server.url), limit()
    assert store.ask(one).remaining == 2
    server("SCRIPT", "FLUSH")
    assert store.ask(one).remaining == 1
    server("FLUSHALL")
    assert store.ask(one).remaining == 2
    assert store.fallbacks == 0


@waiting
def test_made_a_replica(server: RedisServer, open_store: Open) -> None:
    """After a failover the old master's refusals send the gateway to look for the new one."""
    store, one = open_store(server.url), limit()
    server("REPLICAOF", "127.0.0.1", redis_server.free_port())
    assert store.ask(one).remaining == 2
    assert not store.up
    store.second()
    assert not store.up
    server("REPLICAOF", "NO", "ONE")
    store.until_up()
    assert store.ask(one).allowed


@waiting
def test_a_password_that_was_wrong_and_is_corrected(server: RedisServer, open_store: Open, tmp_path: Path) -> None:
    """Rotating the password takes a new file, not a restart; and no password is ever told."""
    file = tmp_path / "password"
    file.write_text("wr0ng\n")
    server("CONFIG", "SET", "requirepass", "r1ght")
    server.password = "r1ght"
    store, one = open_store(server.url, password_file=str(file)), limit()
    assert not store.up
    assert "WRONGPASS" in store.link._reason
    assert store.ask(one).remaining == 2
    store.second()
    file.unlink()
    store.second()
    assert not store.up
    file.write_text("r1ght\n")
    store.until_up()
    assert "r0ng" not in store.link._reason
    assert store.ask(one).remaining == 2


@waiting
def test_counts_are_in_the_database_of_the_url(server: RedisServer, open_store: Open) -> None:
    """And in no other."""
    store = open_store(f"redis://127.0.0.1:{server.port}/3")
    assert store.ask(limit()).remaining == 2
    assert store.fallbacks == 0
    assert b"db3:keys=" in server("INFO", "keyspace")


@waiting
def test_tls_that_verifies(open_store: Open, tmp_path: Path) -> None:
    """Counts travel encrypted, to the server that we trust and to no other."""
    if b"libssl" not in subprocess.run(["ldd", redis_server.binary()], capture_output=True, check=False).stdout:
        pytest.skip("this server was built without TLS")
    right, wrong = Authority(tmp_path, "right"), Authority(tmp_path, "wrong")
    own = right.sign("redis", x509.IPAddress(ip_address("127.0.0.1")))
    secure = redis_server.free_port()
    tls = ["--tls-port", str(secure), "--tls-cert-file", own.certificate, "--tls-key-file", own.key]
    with redis_server.running(*tls, "--tls-auth-clients", "no", "--tls-ca-cert-file", right.file):
        url = f"rediss://127.0.0.1:{secure}"
        assert open_store(url, ca_file=right.file, timeout=5.0).ask(limit()).remaining == 2
        for refused in (open_store(url, ca_file=wrong.file), open_store(url)):
            assert not refused.up
            assert "certificate" in refused.link._reason


def is_master(server: RedisServer) -> bool:
    try:
        return bool(server("ROLE")[0] == b"master")
    except OSError:  # a sentinel cuts the clients off of whom it promotes
        return False


@waiting
def test_sentinel_fails_over(open_store: Open) -> None:
    """When the master dies, the gateway follows the sentinels to the next one."""
    with redis_server.running() as first, redis_server.running() as second, tempfile.TemporaryDirectory() as directory:
        second("REPLICAOF", "127.0.0.1", first.port)
        redis_server.wait_until(lambda: b"master_link_status:up" in second("INFO", "replication"))
        file = Path(directory, "sentinel.conf")
        file.write_text(
            f"sentinel monitor limits 127.0.0.1 {first.port} 1\n"
            "sentinel down-after-milliseconds limits 300\n"
            "sentinel failover-timeout limits 2000\n"
        )
        sentinel = RedisServer(directory, str(file), "--sentinel")
        sentinel.start_sentinel()
        try:
            redis_server.wait_until(lambda: sentinel("SENTINEL", "REPLICAS", "limits"))
            sentinels = (("127.0.0.1", redis_server.free_port()), ("127.0.0.1", sentinel.port))
            store = open_store("redis://ignored", sentinels=sentinels, sentinel_name="limits", timeout=5.0)
            assert store.up
            assert store.ask(limit()).remaining == 2
            first.kill()
            until(lambda: not store.up)
            assert store.ask(limit()).remaining == 2
            redis_server.wait_until(lambda: is_master(second), 30)
            store.until_up()
            store.fallbacks = 0
            assert store.ask(limit()).allowed
            assert store.fallbacks == 0
        finally:
            sentinel.kill()


@waiting
@pytest.mark.parametrize("reply", [b"$8\r\n12345678\r\n", b":7\r\n", b"$-1\r\n"])
def test_a_reply_that_is_none_to_a_check(open_store: Open, reply: bytes) -> None:
    """Whoever answers a check with something else is not used, and the log says so once."""
    time, one = 1_700_006_400_000_000, limit()
    honest = pack("<4q", time, time, 0, 0)
    peer = RedisPeer(reactor, lambda words: b"$%d\r\n%b\r\n" % (len(honest), honest))
    with logged() as events:
        store = open_store(peer.url)
        assert store.up
        peer.answer = lambda words: reply
        assert [store.ask(one).remaining for _ in range(2)] == [2, 1]
        assert (store.up, store.fallbacks) == (False, 2)
        for _ in range(3):
            store.second()
        assert not store.up
    ours = [event for event in events if event.get("log_namespace") == "apigw.redis.link.RedisLink"]
    warned = [str(event["reason"]) for event in ours if event["log_level"].name == "warn"]
    assert warned == ["its replies to checks have the wrong length or kind"]
    wait_for(ensureDeferred(peer.close()))


@waiting
def test_stopping_answers_those_who_wait(server: RedisServer) -> None:
    """A gateway that shuts down leaves no request hanging on Redis."""
    store = Store(server.url)
    wait_for(store.start())
    server.pause()
    answer = store.check([(limit(), b"x")])
    wait_for(deferLater(reactor, 0))
    wait_for(store.stop())
    assert wait_for(answer).allowed
    assert not store.time.getDelayedCalls()
    server.resume()
