"""Sets of addresses: held against the standard library's networks."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from random import Random

import pytest

from apigw.contract.ranges import Ranges


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255"], ["9.255.255.255", "11.0.0.0", "::a00:1"]),
        ("192.0.2.7", ["192.0.2.7", "::ffff:192.0.2.7", "::ffff:c000:207"], ["192.0.2.6", "192.0.2.8", "::192.0.2.7"]),
        ("::ffff:192.0.2.0/120", ["192.0.2.1", "::ffff:192.0.2.255"], ["192.0.3.0", "::192.0.2.1"]),
        ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], ["::", "::1", "unix:"]),
        ("::/0", ["::", "ffff::1", "fe80::1%eth0"], ["1.2.3.4", "::ffff:1.2.3.4", "unix:"]),
        ("2001:db8::/32", ["2001:db8::", "2001:db8:ffff::1"], ["2001:db7:ffff::", "2001:db9::"]),
        ("10.0.0.0/255.255.0.0", ["10.0.255.255"], ["10.1.0.0"]),
        ("10.0.0.0/0.0.255.255", ["10.0.255.255"], ["10.1.0.0"]),
        ("0.0.0.0/0.0.0.0", ["1.2.3.4"], ["::1"]),
        ("unix:", ["unix:"], ["127.0.0.1", "::1", "", "unknown", "127.1", "010.0.0.1", "1.2.3.4.5", "::g", "\xff"]),
    ],
)
def test_what_a_network_holds(network: str, inside: list[str], outside: list[str]) -> None:
    """The first address and the last, and none besides. IPv4 mapped into IPv6 is IPv4; no address is nowhere."""
    ranges = Ranges([network])
    assert [each for each in (*inside, *outside) if ranges.holds(each.encode("latin-1"))] == inside


def test_many_networks() -> None:
    """Thousands of networks that overlap, touch and repeat hold what each of them holds."""
    random = Random(1)
    networks = [f"{ip_address(random.getrandbits(32))}/{random.randint(6, 32)}" for _ in range(300)]
    networks += [f"{ip_address(random.getrandbits(7) << 121)}/{random.randint(3, 128)}" for _ in range(300)]
    known = [ip_network(each, strict=False) for each in networks]
    ranges = Ranges([*networks, *networks[:10]])
    edges = [address for each in known for address in (each[0], each[-1])]
    asked = [*edges, *(edge + step for edge in edges for step in (-1, 1) if 0 < int(edge) < 2**32 - 1)]
    asked += [ip_address(random.getrandbits(32)) for _ in range(300)]
    for address in asked:
        assert ranges.holds(str(address).encode()) == any(address in each for each in known), address


def test_nothing_holds_nothing() -> None:
    """An empty set holds no address."""
    assert not any(Ranges().holds(each) for each in (b"0.0.0.0", b"::", b"unix:", b""))


def test_it_is_made_in_steps() -> None:
    """Ten thousand networks are read in pieces, between which requests are served."""
    ranges = Ranges()
    steps = sum(1 for _ in ranges.fill([f"10.{n >> 8}.{n & 255}.0/24" for n in range(10_000)]))
    assert steps >= 10_000 // 256 and ranges.holds(b"10.39.15.1") and not ranges.holds(b"10.39.16.1")
