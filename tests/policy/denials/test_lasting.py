"""Tunnels and event streams of those who are denied."""

from __future__ import annotations

from typing import Any

import pytest

from apigw import is_compiled
from apigw.contract.exchange import Exchange
from apigw.contract.peers import Peers
from apigw.contract.principal import Principal
from apigw.errors import GatewayError
from apigw.policy.denials.lasting import Lasting
from apigw.policy.denials.watch import Watch
from apigw.wire.request import Request, Stream

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")


class Driver:
    """``refused`` are the ids of those that were ended."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def refuse(self, exchange: Exchange, error: GatewayError) -> None:
        assert exchange.principal is not None
        self.refused.append(exchange.principal.id)
        for each in exchange.at_end:
            each.run(exchange)


def test_who_is_denied_is_cut() -> None:
    """All of theirs, and nobody else's; what has ended by itself is forgotten."""
    watch = Watch(lambda kind: None)
    later: list[Any] = []
    lasting = Lasting(watch, lambda: (), later.append)
    driver: Any = Driver()
    stream = Stream(b"192.0.2.1", False)

    def lasts(id: str) -> Exchange:
        request = Request(stream, b"GET", b"/a", b"/a", b"", b"x", [], b"HTTP/1.1", 0)
        exchange = Exchange(driver, request, Peers(), 0.0)
        exchange.principal = Principal("corp", id)
        lasting.run(exchange)
        return exchange

    ended = [lasts(id) for id in ("ada", "bob", "ada", "eve")][3]
    for each in ended.at_end:
        each.run(ended)
    watch.use((), ["ada", "eve"], (), (), ())
    assert lasting.review() == 2 and driver.refused == ["ada", "ada"] and len(lasting) == 1
    watch.use(["192.0.2.0/24"], (), (), (), ())
    assert lasting.review() == 1 and not len(lasting) and not later
    # Its request was sent before the denial, and answered after it.
    lasts("ada")
    (review,) = later
    assert review() and not len(lasting)
    # And it alone is looked at then: others, which may be thousands, are when denials change.
    watch.use((), ["eve"], (), (), ())
    lasts("ada")
    watch.use((), ["ada"], (), (), ())
    lasts("bob")
    assert not later[-1]() and len(lasting) == 2
    assert lasting.review() == 1 and not later[-2]() and len(lasting) == 1
