"""All stores of refresh tokens by one contract, the one in Redis with a real server."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from attrs import evolve
from support import redis_server
from support.awaiting import wait_for, waiting
from support.logged import logged
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from apigw.config.model import Redis
from apigw.errors import AuthUnavailable
from apigw.policy.oauth.page_families import PageFamilies
from apigw.policy.oauth.redis_families import RedisFamilies
from apigw.policy.oauth.refresh import LIFETIME, Family, FamilyStore, MemoryFamilies, digest, new_token, take_apart
from apigw.redis.link import RedisLink
from apigw.shared.locks import STRUCTURE
from apigw.shared.page import Page
from apigw.shared.records import FOR_EVER, Busy

NOON = 1_700_006_400.0
FAMILY = Family("acme", ("orders.read", "ümlaut"), digest("first"), NOON + LIFETIME)
NEXT = evolve(FAMILY, digest=digest("second"))
IDS = count()


@pytest.fixture(scope="module")
def server() -> Iterator[redis_server.RedisServer]:
    with redis_server.running() as server:
        yield server


@pytest.fixture(scope="module")
def shared(server: redis_server.RedisServer) -> Iterator[RedisFamilies]:
    link = RedisLink(Redis(server.url, timeout=5, prefix="test"), reactor)
    wait_for(link.start())
    assert link.up
    yield RedisFamilies(link)
    wait_for(link.stop())


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make(2, records_memory=16 * 1024)
    yield page
    page.close()


@pytest.fixture(params=["memory", "page", "redis"])
def families(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        return MemoryFamilies()
    if request.param == "page":
        return PageFamilies(request.getfixturevalue("page").records)
    return request.getfixturevalue("shared")


@pytest.fixture
def id() -> str:
    """One that no other test has used."""
    return f"family{next(IDS)}"


@waiting
def test_what_was_put_is_there_until_it_is_removed(families: FamilyStore, id: str) -> None:
    """A client cannot refresh, or after a theft the thief still can."""
    assert wait_for(families.get(id, NOON)) is None
    assert wait_for(families.put(id, FAMILY, NOON)) is None
    assert wait_for(families.get(id, NOON)) == FAMILY
    assert wait_for(families.remove(id)) is None
    assert wait_for(families.remove(id)) is None
    assert wait_for(families.get(id, NOON)) is None
    assert wait_for(families.replace(id, FAMILY.digest, NEXT, NOON)) is False


@waiting
def test_only_the_current_secret_is_replaced(families: FamilyStore, id: str) -> None:
    """A refresh token works a second time."""
    wait_for(families.put(id, FAMILY, NOON))
    assert wait_for(families.replace(id, digest("other"), NEXT, NOON)) is False
    assert wait_for(families.get(id, NOON)) == FAMILY
    assert wait_for(families.replace(id, FAMILY.digest, NEXT, NOON)) is True
    assert wait_for(families.get(id, NOON)) == NEXT
    assert wait_for(families.replace(id, FAMILY.digest, NEXT, NOON)) is False


@waiting
def test_of_many_at_once_one_succeeds(families: FamilyStore, id: str) -> None:
    """The thief and the client refresh in the same moment, and both get a token."""
    wait_for(families.put(id, FAMILY, NOON))
    others = [evolve(FAMILY, digest=digest(str(number))) for number in range(20)]
    replaced = wait_for(gatherResults([families.replace(id, FAMILY.digest, other, NOON) for other in others]))
    assert sum(replaced) == 1
    assert wait_for(families.get(id, NOON)) == others[replaced.index(True)]


@waiting
def test_a_family_expires(families: FamilyStore, id: str) -> None:
    """A refresh token works for ever."""
    wait_for(families.put(id, FAMILY, NOON))
    assert wait_for(families.get(id, FAMILY.expires - 0.001)) == FAMILY
    assert wait_for(families.get(id, FAMILY.expires)) is None


@waiting
def test_what_lies_in_redis(shared: RedisFamilies, server: redis_server.RedisServer) -> None:
    """Whoever reads the store can refresh with what he finds, or it is kept for ever."""
    id, token, kept = new_token()
    wait_for(shared.put(id, evolve(FAMILY, digest=kept), NOON))
    assert take_apart(token) == (id, kept)
    name = f"test:refresh:1:{id}"
    stored = server("GET", name)
    assert token.partition(".")[2].encode() not in stored
    assert stored.startswith(kept.encode())
    assert LIFETIME - 60 < server("PTTL", name) / 1000 <= LIFETIME
    assert wait_for(shared.replace(id, kept, evolve(NEXT, expires=NOON + 100), NOON))
    assert 40 < server("PTTL", name) / 1000 <= 100


@waiting
@pytest.mark.parametrize(
    "rest",
    [
        *(b"", b"[", b"null", b"\xff", b"[" * 100_000),
        *(b'["acme", []]', b'["acme", [], "soon"]', b'["acme", "scope", 1800000000]', b'["acme", [7], 1800000000]'),
        *(b"[7, [], 1800000000]", b'["acme", [], NaN]', b'["acme", [], Infinity]', b'["acme", [], 1%b]' % (b"0" * 400)),
        *(
            b'["acme", [], 1%b]' % (b"0" * 5000),
            b'["acme", [%b], 9]' % (b"[" * 40 + b"]" * 40),
            b'["%b"]' % (b"x" * 2**21),
        ),
    ],
)
def test_a_broken_record_is_no_family(
    shared: RedisFamilies, server: redis_server.RedisServer, id: str, rest: bytes
) -> None:
    """Its refresh token is refused like one that is not known, and the log names the key."""
    with logged() as events:
        for digits in (FAMILY.digest.encode(), b"\xff" * 64):
            server("SET", f"test:refresh:1:{id}", digits + rest)
            assert wait_for(shared.get(id, NOON)) is None
    said = [event["key"] for event in events if event.get("log_namespace") == "apigw.policy.oauth.redis_families"]
    assert said == [f"test:refresh:1:{id}"] * 2


@waiting
def test_another_gateway_finds_it(shared: RedisFamilies, server: redis_server.RedisServer, id: str) -> None:
    """A client comes to the other gateway the next time, and must log in anew; or after a restart."""
    wait_for(shared.put(id, FAMILY, NOON))
    link = RedisLink(Redis(server.url, timeout=5, prefix="test"), reactor)
    wait_for(link.start())
    other = RedisFamilies(link)
    server("SCRIPT", "FLUSH")
    assert wait_for(other.replace(id, FAMILY.digest, NEXT, NOON)) is True
    wait_for(link.stop())
    assert wait_for(shared.get(id, NOON)) == NEXT
    with pytest.raises(AuthUnavailable) as raised:
        wait_for(other.get(id, NOON))
    assert raised.value.headers == [(b"retry-after", b"1")]
    with pytest.raises(AuthUnavailable):
        wait_for(other.replace(id, NEXT.digest, FAMILY, NOON))


@waiting
def test_no_client_pushes_out_the_families_of_another() -> None:
    """In memory there is room for so many: the longest unused one leaves of the client that has the most."""
    families = MemoryFamilies(capacity=10)
    for number in range(3):
        wait_for(families.put(f"small{number}", evolve(FAMILY, client="small"), NOON))
    for number in range(100):
        wait_for(families.put(f"busy{number}", evolve(FAMILY, client="busy"), NOON))
        if number == 5:
            assert wait_for(families.replace("busy0", FAMILY.digest, evolve(NEXT, client="busy"), NOON))
        if number == 10:  # the longest unused have left, and not the first
            assert wait_for(families.get("busy0", NOON)) is not None
            assert wait_for(families.get("busy1", NOON)) is None
    assert len(families) == 10
    kept = [wait_for(families.get(f"small{number}", NOON)) is not None for number in range(3)]
    kept += [wait_for(families.get(f"busy{number}", NOON)) is not None for number in range(93, 100)]
    assert all(kept)
    for number in range(3):
        wait_for(families.remove(f"small{number}"))
    for number in range(100):
        wait_for(families.remove(f"busy{number}"))
    assert (len(families), families._of) == (0, {})


@waiting
def test_no_client_pushes_out_the_families_of_another_over_workers(page: Page) -> None:
    """The client that has the most loses one; and what is for ever, as a key, stays."""
    families = PageFamilies(page.records)
    page.records.first(b"key", b"key", b"kept", FOR_EVER, 0)
    for number in range(3):
        wait_for(families.put(f"small{number}", evolve(FAMILY, client="small"), NOON))
    for number in range(300):
        wait_for(families.put(f"busy{number}", evolve(FAMILY, client="busy"), NOON))
        assert wait_for(families.get("busy0", NOON)) is not None
    assert 40 < len(page.records) < 64
    assert all(wait_for(families.get(f"small{number}", NOON)) is not None for number in range(3))
    assert page.records.first(b"key", b"key", b"another", FOR_EVER, 0) == b"kept"
    for number in range(3):
        wait_for(families.remove(f"small{number}"))
    for number in range(300):
        wait_for(families.remove(f"busy{number}"))
    assert len(page.records) == 1


@waiting
def test_families_that_have_expired_leave_first(page: Page) -> None:
    """Of whichever client."""
    families = PageFamilies(page.records)
    wait_for(families.put("short", evolve(FAMILY, client="small", expires=NOON + 1), NOON))
    number = 0
    while len(page.records) == number + 1:
        number += 1
        wait_for(families.put(f"busy{number}", evolve(FAMILY, client="busy"), NOON + 2))
    assert wait_for(families.get("short", NOON)) is None
    assert wait_for(families.get("busy1", NOON)) is not None


@waiting
def test_a_family_stays_if_there_is_no_room_for_its_next_token(page: Page) -> None:
    """The client is asked to come again, and can."""
    families = PageFamilies(page.records)
    wait_for(families.put("a", FAMILY, NOON))
    with pytest.raises(AuthUnavailable):
        wait_for(families.replace("a", FAMILY.digest, evolve(NEXT, scopes=("s" * 16 * 1024,)), NOON))
    assert wait_for(families.get("a", NOON)) == FAMILY
    assert wait_for(families.replace("a", FAMILY.digest, NEXT, NOON))


def test_a_record_that_is_as_long_as_the_old_one_needs_no_room(page: Page) -> None:
    """Though there is none for another, and nothing can leave."""
    records = page.records
    with pytest.raises(Busy):
        for number in count():
            records.put(b"%d" % number, b"owner", b"old", FOR_EVER, 0)
    for name in (b"0", b"1"):
        records.put(name, b"owner", b"new", FOR_EVER, 0)
    assert [records.get(name, 0) for name in (b"0", b"1", b"2")] == [b"new", b"new", b"old"]


@waiting
def test_a_worker_that_hangs_with_the_lock(page: Page) -> None:
    """The client is asked to come again."""
    families = PageFamilies(page.records)
    page.locks.take(64)
    for asked in (families.put("a", FAMILY, NOON), families.get("a", NOON), families.remove("a")):
        with pytest.raises(AuthUnavailable) as raised:
            wait_for(asked)
        assert raised.value.headers == [(b"retry-after", b"1")]
    page.locks.give_back(64)


@waiting
def test_a_worker_that_dies_while_it_writes(page: Page) -> None:
    """Nothing half-written is left, and the next can be stored."""
    families = PageFamilies(page.records)
    wait_for(families.put("a", FAMILY, NOON))
    page.locks.worker = 1
    page.locks.take(64)
    page.locks.writes(64, STRUCTURE)
    page.died(1)
    assert wait_for(families.get("a", NOON)) is None
    wait_for(families.put("a", FAMILY, NOON))
    assert wait_for(families.get("a", NOON)) == FAMILY
