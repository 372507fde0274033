"""Pieces of bodies, as a plugin sees and changes them."""

from __future__ import annotations

from typing import Any

from apigw.testing import Reply


async def test_a_body_of_one_piece_has_its_length(apigw: Any) -> None:
    """The service gets no byte beyond what is announced, which it would take for the next request."""
    routes = [{"path": "/*", "service": "main", "use": ["upper"]}]
    gateway = apigw(["./pieces.py:Upper"], services={"main": Reply(200, {}, "fine")}, routes=routes)
    for _ in range(2):
        assert (await gateway.request("POST", "/", body="hello")).text == "fine"
    got = [(each.body, each.get("content-length")) for each in gateway.service.received]
    assert got == [(b"HELLO", "5")] * 2
