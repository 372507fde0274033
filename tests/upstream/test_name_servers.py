"""What a real name server says of a name, and what is made of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from support.dns_server import Server, Zone
from twisted.internet import reactor
from twisted.names import dns

from apigw.upstream.name_servers import (
    Address,
    NameServers,
    NotAnswered,
    Settings,
    candidates,
    settings_in,
)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(reactor).start()
    yield server
    server.stop()


@pytest.fixture
def zone(server: Server) -> Zone:
    return server.zone


@pytest.fixture
def names(server: Server, tmp_path: Path) -> NameServers:
    settings = Settings((("127.0.0.1", server.port),), ("svc.test",), timeout=1.0, attempts=1)
    return NameServers(reactor, str(tmp_path / "hosts"), settings=settings)


def hosts(*found: Address) -> list[str]:
    return [each.host for each in found]


@pytest_twisted.ensureDeferred
async def test_all_addresses_of_a_name_with_the_shortest_ttl(names: NameServers, zone: Zone) -> None:
    """Of both families, through aliases, whose TTL counts, too."""
    zone.addresses("real.test", "10.0.0.1", "10.0.0.2", "fd00::1", ttl=60)
    zone.alias("orders.test", "real.test", ttl=7)
    found = await names.look_up("dns", "orders.test")
    assert (hosts(*found.addresses), found.ttl, found.unknown) == (["10.0.0.1", "10.0.0.2", "fd00::1"], 7, ())
    assert not any(each.trusted for each in found.addresses)


@pytest_twisted.ensureDeferred
async def test_ipv4_written_as_ipv6_is_ipv4(names: NameServers, zone: Zone, tmp_path: Path) -> None:
    """So a name cannot lead back to the gateway's own listener by another spelling of its address."""
    zone.addresses("orders.test", "10.0.0.1", "::ffff:10.0.0.1", "::ffff:127.0.0.1")
    (tmp_path / "hosts").write_text("::ffff:127.0.0.1 local.test\n")
    assert set(hosts(*(await names.look_up("dns", "orders.test")).addresses)) == {"10.0.0.1", "127.0.0.1"}
    assert hosts(*(await names.look_up("dns", "local.test")).addresses) == ["127.0.0.1"]


@pytest_twisted.ensureDeferred
async def test_more_than_a_datagram_holds_is_asked_by_tcp(names: NameServers, zone: Zone) -> None:
    zone.addresses("many.test", *(f"10.0.{number // 250}.{number % 250 + 1}" for number in range(1000)))
    found = await names.look_up("dns", "many.test")
    assert len(found.addresses) == 1000


@pytest_twisted.ensureDeferred
async def test_a_name_that_does_not_exist_has_no_addresses(names: NameServers, zone: Zone) -> None:
    """Nor has one without records; that is an answer and no failure."""
    zone.addresses("empty.test")
    for name in ("empty.test", "missing.test"):
        assert (await names.look_up("dns", name)).addresses == ()


@pytest_twisted.ensureDeferred
async def test_a_server_that_fails_says_nothing_of_a_name(names: NameServers, zone: Zone) -> None:
    """Of one family, where it knows the other; none at all, where it knows neither."""
    zone.addresses("half.test", "10.0.0.1")
    zone.broken = {("half.test", dns.AAAA), ("broken.test", dns.A), ("broken.test", dns.AAAA)}
    found = await names.look_up("dns", "half.test")
    assert (hosts(*found.addresses), found.unknown) == (["10.0.0.1"], (6,))
    with pytest.raises(NotAnswered, match="code 2"):
        await names.look_up("dns", "broken.test")


@pytest_twisted.ensureDeferred
async def test_the_next_server_is_asked_if_one_fails(server: Server, zone: Zone, tmp_path: Path) -> None:
    other = Server(reactor).start()
    try:
        other.zone.broken = {("orders.test", dns.A), ("orders.test", dns.AAAA)}
        zone.addresses("orders.test", "10.0.0.1")
        settings = Settings((("127.0.0.1", other.port), ("127.0.0.1", server.port)))
        names = NameServers(reactor, str(tmp_path / "hosts"), settings=settings)
        assert hosts(*(await names.look_up("dns", "orders.test")).addresses) == ["10.0.0.1"]
    finally:
        await other.stop()


@pytest_twisted.ensureDeferred
async def test_a_short_name_is_looked_for_in_the_search_list(names: NameServers, zone: Zone) -> None:
    zone.addresses("orders.svc.test", "10.0.0.1")
    assert hosts(*(await names.look_up("dns", "orders")).addresses) == ["10.0.0.1"]
    assert (await names.look_up("dns", "orders.")).addresses == ()


@pytest_twisted.ensureDeferred
async def test_what_stands_in_hosts_is_not_asked(names: NameServers, zone: Zone, tmp_path: Path) -> None:
    """It is the operator's own word."""
    (tmp_path / "hosts").write_text("127.0.0.1 orders.test  # here\nfd00::1 Orders.test\n")
    for name, expected in (("orders.test", ["127.0.0.1", "fd00::1"]), ("localhost", ["127.0.0.1", "::1"])):
        found = await names.look_up("dns", name)
        assert hosts(*found.addresses) == expected
        assert all(each.trusted for each in found.addresses)
    assert zone.asked == []


@pytest_twisted.ensureDeferred
async def test_srv_records_have_port_and_weight(names: NameServers, zone: Zone) -> None:
    """Only those of the lowest priority that have addresses are used; a weight of 0 is the smallest."""
    zone.services(
        "_orders._tcp.test",
        (5, 10, 80, "gone.test"),
        (10, 3, 8080, "a.test"),
        (10, 0, 8081, "b.test"),
        (20, 1, 8082, "c.test"),
        ttl=30,
    )
    zone.addresses("a.test", "10.0.0.1", "10.0.0.2", ttl=9)
    zone.addresses("b.test", "10.0.0.3")
    zone.addresses("c.test", "10.0.0.4")
    found = await names.look_up("srv", "_orders._tcp.test")
    assert found.ttl == 9
    assert found.addresses == (
        Address("10.0.0.1", 8080, 30),
        Address("10.0.0.2", 8080, 30),
        Address("10.0.0.3", 8081, 1),
    )


@pytest_twisted.ensureDeferred
async def test_a_record_without_the_name_of_a_host_does_no_harm_to_others(names: NameServers, zone: Zone) -> None:
    zone.services("_orders._tcp.test", (0, 1, 80, "good.test"))
    for name in (b"\xff\xfe.test", b"a b.test", b"a\n.test", b".".join([b"x" * 60] * 5)):
        odd = dns.Record_SRV(0, 1, 80, b"", 60)
        odd.target.name = name
        zone.records["_orders._tcp.test", dns.SRV].append(odd)
    zone.addresses("good.test", "10.0.0.1")
    assert hosts(*(await names.look_up("srv", "_orders._tcp.test")).addresses) == ["10.0.0.1"]


@pytest_twisted.ensureDeferred
async def test_srv_records_that_say_there_is_no_service(names: NameServers, zone: Zone) -> None:
    """The target `.` (RFC 2782)."""
    zone.services("_orders._tcp.test", (0, 0, 0, ""))
    assert (await names.look_up("srv", "_orders._tcp.test")).addresses == ()


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", Settings()),
        (
            "# c\nnameserver 10.0.0.2\nnameserver fd00::2 # x\nnameserver nonsense\nsearch a.test. b.test\n"
            "options ndots:5 timeout:2 attempts:9 edns0\n",
            Settings((("10.0.0.2", 53), ("fd00::2", 53)), ("a.test", "b.test"), 5, 2, 5),
        ),
        ("search a\ndomain b.test\noptions timeout:0 ndots:99", Settings(search=("b.test",), timeout=1, ndots=15)),
        ("nameserver\nnameserver 1.1.1.1\n" * 5, Settings((("1.1.1.1", 53),) * 3)),
    ],
    ids=["empty", "all", "bounds", "three"],
)
def test_a_resolv_conf_is_read_as_by_the_system(text: str, settings: Settings) -> None:
    assert settings_in(text) == settings


@pytest.mark.parametrize(
    ("name", "ndots", "tried"),
    [
        ("orders", 1, ["orders.svc", "orders.test", "orders"]),
        ("a.orders", 1, ["a.orders", "a.orders.svc", "a.orders.test"]),
        ("a.orders", 5, ["a.orders.svc", "a.orders.test", "a.orders"]),
        ("a.orders.", 5, ["a.orders"]),
    ],
)
def test_the_names_that_a_name_may_mean(name: str, ndots: int, tried: list[str]) -> None:
    assert list(candidates(name, Settings(search=("svc", "test"), ndots=ndots))) == tried


class Forger:
    """Answers each question with bytes of its own first."""

    def __init__(self, change: Callable[[dns.Message], bytes]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._change = change
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for _ in range(2):  # A and AAAA
            data, address = self._socket.recvfrom(512)
            message = dns.Message()
            message.fromStr(data)
            message.answer = 1
            self._socket.sendto(self._change(message), address)
            message = dns.Message()
            message.fromStr(data)
            message.answer = 1
            name = message.queries[0].name.name
            message.answers = [dns.RRHeader(name, dns.A, dns.IN, 60, dns.Record_A("10.0.0.1", 60))]
            self._socket.sendto(message.toStr(), address)
        self._socket.close()


def _renumbered(message: dns.Message) -> bytes:
    message.id ^= 1
    return bytes(message.toStr())


def _about_another(message: dns.Message) -> bytes:
    message.queries = [dns.Query(b"evil.test", dns.A, dns.IN)]
    return bytes(message.toStr())


def _no_answer(message: dns.Message) -> bytes:
    message.answer = 0
    return bytes(message.toStr())


FORGED = {
    "number": _renumbered,
    "question": _about_another,
    "no answer": _no_answer,
    "short": lambda message: b"\0",
    "empty": lambda message: b"",
    "pointer that goes round": lambda message: bytes(message.toStr()[:12]) + b"\xc0\x0c\0\1\0\1",
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
@pytest_twisted.ensureDeferred
async def test_what_is_no_answer_to_the_question_is_not_looked_at(
    forged: Callable[[dns.Message], bytes], tmp_path: Path
) -> None:
    """The right one may follow."""
    settings = Settings((("127.0.0.1", Forger(forged).port),), timeout=2.0, attempts=1)
    found = await NameServers(reactor, str(tmp_path / "hosts"), settings=settings).look_up("dns", "orders.test")
    assert hosts(*found.addresses) == ["10.0.0.1"]


@pytest_twisted.ensureDeferred
async def test_a_server_that_nobody_runs_says_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = NameServers(reactor, str(tmp_path / "hosts"), settings=Settings((("127.0.0.1", port),), attempts=1))
    with pytest.raises(NotAnswered):
        await names.look_up("dns", "orders.test")
