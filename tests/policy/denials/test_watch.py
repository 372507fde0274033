"""Which requests a denial refuses."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support.routed import Peer, Routed

from apigw.contract.exchange import Exchange
from apigw.contract.principal import Principal, key_of
from apigw.errors import Denied, Unauthorized
from apigw.policy.auth.digest import token_digest
from apigw.policy.denials.watch import Guard, Watch

TOKEN = b"eyJh.eyJi.c2ln"
KEY = b"apigw_a-key-of-a-partner"
NOTHING: dict[str, Any] = {"addresses": (), "ids": (), "subjects": (), "keys": (), "tokens": ()}


class Gate:
    """``denied`` are the kinds of what was refused."""

    def __init__(self, directory: Path) -> None:
        self.routed = Routed(directory, {"path": "/a", "service": "main"})
        self.denied: list[str] = []
        self.watch = Watch(self.denied.append)
        self.guard = Guard(self.watch)
        self.guard.key_fields = (b"x-key",)

    def exchange(self, *headers: tuple[bytes, bytes], id: str = "ada", peer: bytes = b"192.0.2.1") -> Exchange:
        exchange = self.routed.exchange("/a", *headers, principal=Principal("corp", id))
        stream: Any = Peer(False)
        stream.peer = peer
        exchange.request.stream = stream
        return exchange

    def deny(self, **what: Any) -> None:
        self.watch.use(**{**NOTHING, **what})
        self.guard.forget()

    def passes(self, exchange: Exchange) -> bool:
        try:
            assert self.guard.run(exchange) is None
        except (Denied, Unauthorized):
            return False
        return True


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def test_addresses(gate: Gate) -> None:
    """An address, or a network; of IPv4 however it is written."""
    gate.deny(addresses=["192.0.2.0/24", "2001:db8::1"])
    refused = {peer: not gate.passes(gate.exchange(peer=peer)) for peer in (b"192.0.2.9", b"::ffff:192.0.2.9")}
    assert refused == dict.fromkeys(refused, True) and gate.denied == ["address", "address"]
    assert gate.passes(gate.exchange(peer=b"192.0.3.1")) and gate.passes(gate.exchange(peer=b"unix:"))


def test_subjects(gate: Gate) -> None:
    """A caller's id of any provider, or of one."""
    gate.deny(ids=["ada"])
    assert not gate.passes(gate.exchange(id="ada")) and gate.passes(gate.exchange(id="bob"))
    gate.deny(subjects=[key_of("corp", "bob"), key_of("other", "ada")])
    assert gate.passes(gate.exchange(id="ada")) and not gate.passes(gate.exchange(id="bob"))
    anonymous = gate.exchange()
    anonymous.principal = None
    assert gate.passes(anonymous)


def test_keys(gate: Gate) -> None:
    """By the hash that stands in the file, in the header of a provider."""
    gate.deny(keys=[sha256(KEY).hexdigest()])
    assert not gate.passes(gate.exchange((b"x-key", KEY)))
    assert gate.passes(gate.exchange((b"x-key", KEY + b"x"))) and gate.passes(gate.exchange((b"x-other", KEY)))


@pytest.mark.parametrize(
    ("value", "passes"),
    [
        (b"Bearer " + TOKEN, False),
        (b"bearer  " + TOKEN + b" ", False),
        (b"Bearer eyJh.eyJi.another-signature", False),
        (b"Bearer eyJh.eyJj.c2ln", True),
        (b"Bearer eyJh.eyJi.c2ln.x", True),
        (b"Bearer", True),
    ],
)
def test_tokens(gate: Gate, value: bytes, passes: bool) -> None:
    """What of a token is signed counts, and not its signature, of which there may be several that are good."""
    gate.deny(tokens=[token_digest(TOKEN)])
    assert gate.passes(gate.exchange((b"authorization", value))) is passes


def test_opaque_tokens(gate: Gate) -> None:
    """One that is no JWT counts whole."""
    gate.deny(tokens=[token_digest(b"opaque.token")])
    assert not gate.passes(gate.exchange((b"authorization", b"Bearer opaque.token")))
    assert gate.passes(gate.exchange((b"authorization", b"Bearer opaque.other")))
    gate.deny(tokens=[token_digest(b"v4.public.one")])
    assert not gate.passes(gate.exchange((b"authorization", b"Bearer v4.public.one")))
    assert gate.passes(gate.exchange((b"authorization", b"Bearer v4.public.other")))


def test_the_answers(gate: Gate) -> None:
    """403; for a token 401, so that a client which can get another does."""
    gate.deny(ids=["ada"])
    with pytest.raises(Denied) as denied:
        gate.guard.run(gate.exchange())
    assert (denied.value.status, denied.value.code) == (403, "denied")
    gate.deny(tokens=[token_digest(TOKEN)])
    with pytest.raises(Unauthorized) as unauthorized:
        gate.guard.run(gate.exchange((b"authorization", b"Bearer " + TOKEN)))
    ((name, challenge),) = unauthorized.value.headers
    assert name == b"www-authenticate" and b'error="invalid_token"' in challenge
    assert unauthorized.value.reason == "denied"


def test_before_each_stage(gate: Gate) -> None:
    """The address is looked at before the first stage, the caller when it is known: not before, and once."""
    gate.deny(addresses=["192.0.2.0/24"])
    later = gate.exchange()
    later.at = 1
    assert gate.passes(later) and not gate.passes(gate.exchange())
    gate.deny(ids=["ada"])
    exchange = gate.exchange()
    ada, exchange.principal = exchange.principal, None
    assert gate.passes(exchange)
    exchange.principal = ada
    assert not gate.passes(exchange) and not gate.passes(exchange)
    bob = gate.exchange(id="bob")
    assert gate.passes(bob) and gate.passes(bob)
    gate.deny(ids=["bob"])
    assert not gate.passes(bob)
    gate.deny()
    assert gate.passes(bob) and gate.watch.addresses is None and not gate.watch.callers
