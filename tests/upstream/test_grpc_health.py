"""The two messages of gRPC's health checks, as protobuf writes them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigw.upstream.grpc_health import question, status_in


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def test_the_question() -> None:
    """The name of a service, whose length is a varint; nothing for the whole server."""
    assert question("") == b"\0\0\0\0\0"
    assert question("a.B") == b"\0\0\0\0\x05\x0a\x03a.B"
    assert question("x" * 200) == framed(b"\x0a\xc8\x01" + b"x" * 200)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"", 0),
        (b"\x08\x01", 1),
        (b"\x08\x02", 2),
        (b"\x08\x01\x08\x02", 2),
        (b"\x12\x03abc\x08\x01\x19" + b"x" * 8 + b"\x25" + b"y" * 4, 1),
        (b"\x10\x05\x08\x81\x00", 1),
    ],
)
def test_the_answer(message: bytes, status: int) -> None:
    """The last value of its field counts, and fields that are not known are skipped."""
    assert status_in(framed(message)) == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0\0",
        b"\1" + framed(b"\x08\x01")[1:],
        framed(b"\x08\x01") + b"x",
        framed(b"\x08"),
        framed(b"\x08" + b"\xff" * 11),
        framed(b"\x12\x05a"),
        framed(b"\x0b"),
    ],
)
def test_what_is_no_answer(body: bytes) -> None:
    """Compressed, cut short, too long, or malformed."""
    with pytest.raises(ValueError, match=" "):
        status_in(body)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    """By nothing but ``ValueError``."""
    with suppress(ValueError):
        assert status_in(framed(message)) >= 0
