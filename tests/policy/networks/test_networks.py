"""Which clients may call, by their addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.routed import Peer, Routed

from apigw.config.load import load
from apigw.contract.exchange import Exchange
from apigw.errors import AddressDenied, NotFound
from apigw.process.rules import RULES
from apigw.routing.review import review


class Asked:
    """A gateway with one route ``/a``, asked by clients of several addresses."""

    def __init__(self, directory: Path, route: dict[str, Any], **gateway: Any) -> None:
        self.made = Routed(directory, {"path": "/a", "service": "main", **route}, gateway=gateway)

    def exchange(self, peer: str, path: str = "/a", *headers: tuple[bytes, bytes], method: bytes = b"GET") -> Exchange:
        exchange = self.made.exchange(path, *headers, method=method)
        stream: Any = Peer(False)
        stream.peer = peer.encode("ascii")
        exchange.request.stream = stream
        return exchange

    def passes(self, peer: str, *headers: tuple[bytes, bytes]) -> bool:
        try:
            self.made.walked(self.exchange(peer, "/a", *headers))
        except AddressDenied as error:
            assert (error.status, error.code) == (403, "address_denied")
            return False
        return True


BOTH = {"allow": ["10.0.0.0/8", "2001:db8::/32"], "deny": ["10.6.6.0/24"]}


@pytest.mark.parametrize(
    ("route", "gateway", "peer", "passes"),
    [
        (BOTH, {}, "10.1.2.3", True),
        (BOTH, {}, "::ffff:10.1.2.3", True),
        (BOTH, {}, "2001:db8::1", True),
        (BOTH, {}, "10.6.6.6", False),
        (BOTH, {}, "::ffff:10.6.6.6", False),
        (BOTH, {}, "11.0.0.1", False),
        (BOTH, {}, "unix:", False),
        ({"allow": ["unix:"]}, {}, "unix:", True),
        ({"allow": ["unix:"]}, {}, "127.0.0.1", False),
        ({"deny": ["unix:"]}, {}, "unix:", False),
        ({"deny": ["192.0.2.0/24"]}, {}, "198.51.100.1", True),
        # Longer or shorter than the allowed one: what is denied is denied.
        ({"deny": ["10.0.0.0/8"], "allow": ["10.1.0.0/16"]}, {}, "10.1.2.3", False),
        # What the gateway denies no route allows, and the reverse.
        ({"allow": ["10.0.0.0/8"]}, {"deny": ["10.1.0.0/16"]}, "10.1.2.3", False),
        ({"allow": ["10.0.0.0/8"]}, {"allow": ["10.1.0.0/16"]}, "10.2.2.3", False),
        ({"allow": ["10.0.0.0/8"]}, {"allow": ["10.1.0.0/16"]}, "10.1.2.3", True),
        ({}, {"deny": ["10.1.0.0/16"]}, "10.1.2.3", False),
        ({}, {"deny": ["10.1.0.0/16"]}, "10.2.2.3", True),
        ({"allow": None, "deny": []}, {}, "10.2.2.3", True),
    ],
)  # fmt: skip
def test_who_passes(tmp_path: Path, route: dict[str, Any], gateway: dict[str, Any], peer: str, passes: bool) -> None:
    """Clients that are in `allow` and not in `deny`, both of the route and of the gateway; also when asked again."""
    asked = Asked(tmp_path, route, **gateway)
    assert [asked.passes(peer), asked.passes(peer)] == [passes, passes]


@pytest.mark.parametrize(
    ("claimed", "peer", "passes"),
    [
        (b"192.0.2.7", "10.0.0.1", False),
        (b"198.51.100.1", "10.0.0.1", True),
        (b"[::ffff:192.0.2.7]:4711", "10.0.0.1", False),
        (b"198.51.100.1, 192.0.2.7", "::ffff:10.0.0.1", False),
        (b"192.0.2.7, 198.51.100.1", "10.0.0.1", True),
        (b"192.0.2.7", "203.0.113.1", True),  # nobody believes this peer
    ],
)
def test_behind_proxies(tmp_path: Path, claimed: bytes, peer: str, passes: bool) -> None:
    """Behind trusted proxies the client counts that they name, and nobody else's word."""
    asked = Asked(tmp_path, {"deny": ["192.0.2.0/24"]}, trusted_proxies=["10.0.0.0/8"])
    assert asked.passes(peer, (b"x-forwarded-for", claimed)) is passes


@pytest.mark.parametrize(
    ("claimed", "passes"),
    [
        ([], True),  # the proxy asks by itself
        ([b"10.3.0.1"], True),
        ([b"unknown"], False),
        ([b""], False),
        ([b"unix:, 10.3.0.1"], False),
        ([b"unknown", b"10.3.0.1"], False),
        ([b"unknown, 192.0.2.7"], False),
        ([b"unknown, 198.51.100.7"], True),
    ],
)
def test_a_client_that_its_proxy_does_not_name(tmp_path: Path, claimed: list[bytes], passes: bool) -> None:
    """It is not taken for the proxy, whose network is allowed. Where there is no `allow`, it passes."""
    fields = [(b"x-forwarded-for", each) for each in claimed]
    allow, deny = {"allow": ["10.0.0.0/8", "198.51.100.0/24"]}, {"deny": ["203.0.113.0/24"]}
    for number, (route, gateway, right) in enumerate(((allow, {}, passes), ({}, allow, passes), (deny, {}, True))):
        directory = tmp_path / str(number)
        directory.mkdir()
        asked = Asked(directory, route, trusted_proxies=["10.0.0.0/8"], **gateway)
        assert asked.passes("10.0.0.1", *fields) is right


def test_before_all_else(tmp_path: Path) -> None:
    """The gateway's networks count for preflights and what no route matches; a route's before its maintenance."""
    cors = {"origins": ["https://app.example"]}
    asked = Asked(
        tmp_path, {"methods": ["GET"], "cors": cors, "maintenance": True, "deny": ["10.2.0.0/16"]}, deny=["10.1.0.0/16"]
    )
    preflight = ((b"origin", b"https://app.example"), (b"access-control-request-method", b"GET"))
    for path, method, headers in (("/none", b"GET", ()), ("/a", b"OPTIONS", preflight)):
        with pytest.raises(AddressDenied):
            asked.made.walked(asked.exchange("10.1.2.3", path, *headers, method=method))
    with pytest.raises(AddressDenied):
        asked.made.walked(asked.exchange("10.2.2.3"))
    with pytest.raises(NotFound):
        asked.made.walked(asked.exchange("10.3.2.3", "/none"))
    assert asked.made.answer(asked.exchange("10.3.2.3", "/a", *preflight, method=b"OPTIONS")).status == 204


def test_a_route_without_networks_has_no_stage(tmp_path: Path) -> None:
    """What does not use it pays nothing."""
    bare = Routed(
        tmp_path, {"path": "/a", "service": "main"}, {"path": "/b", "service": "main", "deny": ["10.0.0.0/8"]}
    )
    assert [len(bare.exchange(path).route.stages) for path in ("/a", "/b")] == [2, 3]


def test_one_list_is_compiled_once(tmp_path: Path) -> None:
    """Routes with the same networks share them, and what is remembered of addresses."""
    routes = [{"path": f"/{n}", "service": "main", "deny": ["10.0.0.0/8"]} for n in range(3)]
    made = Routed(tmp_path, *routes)
    assert len({made.exchange(f"/{n}").route.stages[0] for n in range(3)}) == 1


def test_a_whole_world(tmp_path: Path) -> None:
    """`check` warns of a network that says nothing, or too much; a weaker route beside one with networks is named."""
    (tmp_path / "gateway.yaml").write_text(
        """\
gateway: {deny: ["::/0"], auth_default: none}
services: {a: {targets: ["http://127.0.0.1:1"]}}
routes:
  - {path: /a/x, methods: [GET], service: a, allow: [10.0.0.0/8, 0.0.0.0/0]}
  - {path: /a/*, service: a}
"""
    )
    config = load(str(tmp_path), {}, RULES)
    said = [str(each).partition(": ")[2] for each in (*config.warnings, *review(config, RULES))]
    assert any("gateway.deny[0]" in each and "refuses every client of its kind" in each for each in said)
    assert any("routes[0].path" in each and "lets clients of every network pass" in each for each in said)
    assert any("routes[0].allow[1]" in each and "lets every client of its kind pass" in each for each in said)
