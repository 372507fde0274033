"""Ports of sockets that somebody else has bound."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.logged import logged
from support.turning import Turning
from twisted.internet.protocol import Factory

from apigw.wire.reactor.ports import serve


class Quiet(Factory):
    noisy = False


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_it_ends_without_a_word(tmp_path: Path, family: socket.AddressFamily) -> None:
    """The socket is still open, for another process perhaps: no log calls it closed."""
    with socket.socket(family) as listening:
        listening.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "a.sock"))
        listening.listen()
        with logged() as events:
            port = serve(Turning(), listening, Quiet())
            port.stopListening()
            port.connectionLost(None)  # type: ignore[attr-defined]  # which the next turn of a reactor calls
        assert [event["log_format"] for event in events] == []
