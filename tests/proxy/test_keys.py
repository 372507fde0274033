"""What requests of one target have in common."""

from __future__ import annotations

from typing import Any

import pytest

from apigw import is_compiled
from apigw.contract.principal import Principal
from apigw.proxy.keys import LONGEST, key_of

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")

CLIENT = b"a203.0.113.7"


class Request:
    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.headers = list(headers)


class Peers:
    def client_address(self, request: Request) -> bytes:
        return CLIENT[1:]


class Exchange:
    peers = Peers()

    def __init__(self, *headers: tuple[bytes, bytes], principal: Principal | None = None) -> None:
        self.request = Request(*headers)
        self.headers = self.request.headers
        self.principal = principal


ANN = Principal("corp", "ann")


@pytest.mark.parametrize(
    ("by", "name", "headers", "principal", "key"),
    [
        ("client", "", [], None, CLIENT),
        ("principal", "", [], ANN, b"p" + ANN.key),
        ("principal", "", [], None, CLIENT),
        ("header", "X-Tenant", [(b"x-tenant", b"acme")], None, b"vacme"),
        ("header", "X-Tenant", [(b"x-tenant", b"acme"), (b"x-tenant", b"b")], None, b"vacme"),
        ("header", "X-Tenant", [(b"x-tenant", b"")], None, CLIENT),
        ("header", "X-Tenant", [(b"x-tenant", b"a" * 9000)], None, b"v" + b"a" * LONGEST),
        ("header", "X-Tenant", [], None, CLIENT),
        ("cookie", "stick", [(b"cookie", b"a=b; stick=7"), (b"cookie", b"stick=8")], None, b"v7"),
        ("cookie", "stick", [(b"cookie", b"sticky=7;stick=")], None, CLIENT),
        ("cookie", "stick", [(b"cookie", b"Stick=7")], None, CLIENT),
    ],
)
def test_the_key_of_a_request(
    by: str, name: str, headers: list[tuple[bytes, bytes]], principal: Principal | None, key: bytes
) -> None:
    """Without one it is the client's address; no value can pass for an address or a caller."""
    exchange: Any = Exchange(*headers, principal=principal)
    assert key_of(by, name).of(exchange) == key
