"""Field names and values, and what is a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigw.wire.headers import (
    CLOSE,
    FIELD_VALUE,
    HOP_BY_HOP,
    KEEP_ALIVE,
    LOWER_TOKEN,
    NO_LINE,
    TOKEN,
    connection_options,
    first,
)

ASCII_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def test_each_byte() -> None:
    """Which bytes may stand in a name and in a value is what RFC 9110 §5.6.2 and §5.5 say, for each of them."""
    for byte in range(256):
        text = bytes([byte])
        assert bool(TOKEN(text)) == (byte in ASCII_TOKEN), text
        assert bool(LOWER_TOKEN(text)) == (byte in ASCII_TOKEN and not text.isupper()), text
        visible = 0x21 <= byte <= 0x7E or byte >= 0x80
        assert bool(FIELD_VALUE(text)) == visible, text
        assert bool(FIELD_VALUE(b"a" + text + b"b")) == (visible or text in (b" ", b"\t")), text
        assert bool(FIELD_VALUE(b"a" + text)) == visible, text
        assert bool(NO_LINE(b"a" + text + b"b")) == (byte == 0x7F or (byte < 0x20 and text != b"\t")), text


@pytest.mark.parametrize("value", [b"", b"a", b"a b", b"a\tb", b"\xe4"])
def test_values(value: bytes) -> None:
    """An empty value is one."""
    assert FIELD_VALUE(value)
    assert not TOKEN(b"")


@given(st.lists(st.sampled_from([b"a", b" ", b"\r", b"\n", b"\r\n", b"\0", b"\xff", b"\t"]), max_size=8))
def test_lines(parts: list[bytes]) -> None:
    """A CR at the very end may still become a line's end; no other CR or LF stands alone."""
    text = b"".join(parts)
    rest = text.removesuffix(b"\r").replace(b"\r\n", b"")
    assert bool(NO_LINE(text)) == any(byte in rest for byte in (b"\r", b"\n", b"\0"))


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (b"close", {b"close"}),
        (b"Close", {b"close"}),
        (b"keep-alive", {b"keep-alive"}),
        (b"Keep-Alive", {b"keep-alive"}),
        (b" a ,\tB,,c, ", {b"a", b"b", b"c"}),
        (b"", set()),
        (b",", set()),
    ],
)
def test_connection_options(value: bytes, options: set[bytes]) -> None:
    """``Connection`` is a list, whatever its case and white space."""
    assert connection_options(value) == options
    assert connection_options(b"keep-alive") is KEEP_ALIVE
    assert connection_options(b"close") == CLOSE


def test_first() -> None:
    """The first of several counts."""
    assert first([(b"a", b"1"), (b"b", b"2"), (b"b", b"3")], b"b") == b"2"
    assert first([], b"b") is None


def test_hop_by_hop_names_are_in_lower_case() -> None:
    """They are compared with names in lower case."""
    assert all(LOWER_TOKEN(name) for name in HOP_BY_HOP)
    assert {b"connection", b"transfer-encoding", b"te", b"upgrade", b"trailer"} <= HOP_BY_HOP
