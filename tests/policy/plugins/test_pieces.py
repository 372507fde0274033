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


async def test_pieces_of_a_body_share_a_state(apigw: Any) -> None:
    """A plugin with no other method counts them; the next body is counted anew."""
    gateway = apigw(["./pieces.py:Numbered"], services={"main": Reply(200, {}, "fine")})
    for _ in range(2):
        await gateway.request("POST", "/", body="x" * 100_000)
    for got in gateway.service.received:
        numbers = [int(number) for number in got.body.split()]
        assert len(numbers) > 1 and numbers == list(range(1, len(numbers) + 1))
