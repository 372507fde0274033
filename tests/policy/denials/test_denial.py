"""What operators may ask for, and how a denial is stored."""

from __future__ import annotations

from typing import Any

import pytest

from apigw.policy.denials.denial import MAX_RECORD, Denial, denial, unpacked

HASH = "sha256:" + 64 * "a"


def made(kind: Any = "address", value: Any = "192.0.2.7", **more: Any) -> Denial:
    asked = {"provider": None, "seconds": 60, "reason": "", **more}
    return denial(kind, value, asked["provider"], asked["seconds"], asked["reason"], 1000.0)


@pytest.mark.parametrize(
    ("kind", "value", "kept"),
    [
        ("address", "192.0.2.7", "192.0.2.7"),
        ("address", "192.0.2.7/32", "192.0.2.7"),
        ("address", "10.0.0.0/8", "10.0.0.0/8"),
        ("address", "::ffff:192.0.2.7", "192.0.2.7"),
        ("address", "::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("address", "2001:DB8:0::1", "2001:db8::1"),
        ("address", "2001:db8::/32", "2001:db8::/32"),
        ("subject", "Ada Lovelace", "Ada Lovelace"),
        ("key", HASH, HASH),
        ("token", HASH, HASH),
    ],
)
def test_what_is_kept(kind: str, value: str, kept: str) -> None:
    """One form for each, so that the same thing is denied once, and found when it is to end."""
    assert made(kind, value).value == kept


@pytest.mark.parametrize(
    "asked",
    [
        {"kind": "ip"},
        {"kind": None},
        {"kind": ["address"]},
        {"value": None},
        {"value": "example.com"},
        {"value": "192.0.2.1/24"},
        {"value": "0.0.0.0/0"},
        {"value": "128.0.0.0/7"},
        {"value": "::/0"},
        {"value": "2000::/15"},
        {"value": "::ffff:0.0.0.0/96"},
        {"value": "unix:"},
        {"value": ""},
        {"kind": "subject", "value": ""},
        {"kind": "subject", "value": "a\nb"},
        {"kind": "subject", "value": "x" * 257},
        {"kind": "key", "value": "apigw_secret"},
        {"kind": "token", "value": "sha256:" + 64 * "A"},
        {"kind": "token", "value": HASH + "\n"},
        {"provider": "corp"},
        {"kind": "subject", "value": "a", "provider": ""},
        {"kind": "subject", "value": "a", "provider": 1},
        {"seconds": 0},
        {"seconds": 0.5},
        {"seconds": True},
        {"seconds": "60"},
        {"seconds": None},
        {"seconds": float("nan")},
        {"seconds": 31 * 86_400 + 1},
        {"reason": None},
        {"reason": "a\nb"},
        {"reason": "x" * 201},
    ],
    ids=str,
)
def test_what_is_refused(asked: dict[str, Any]) -> None:
    """A sentence says what is wrong, and repeats nothing that may be secret."""
    with pytest.raises(ValueError) as caught:
        made(**asked)
    assert "apigw_secret" not in str(caught.value) and str(caught.value).endswith(".")


def test_stored_and_read() -> None:
    """A denial is read as it was stored, with the longest texts too."""
    long = made("subject", "\U0001f600" * 256, provider="\u20ac" * 64, reason="\U0001f600" * 200)
    for each in (made(), made("token", HASH, reason="leaked"), long):
        record = each.packed()
        assert unpacked(record) == each and len(record) <= MAX_RECORD
        assert len({each.name, made().name, long.name}) >= 2


@pytest.mark.parametrize(
    "record",
    [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 2000, b'{"kind": "address"}', made().packed().replace(b"192.0", b"x")]
    + [made().packed().replace(b"1060", number) for number in (b"NaN", b"1e999", b"-1", b'"1"', b"true")],
)  # fmt: skip
def test_what_is_no_denial(record: bytes) -> None:
    """What somebody else has put in the store is nobody's denial, and no error."""
    assert unpacked(record) is None
