"""Which bodies are JSON that all parsers read alike."""

from __future__ import annotations

import pytest

from apigw.contract.strict_json import Malformed, strict_json


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON: line 1, column 2"),
        (b"{} {}", "not JSON"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the same name twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"\xff", "not UTF-8"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[" * 65 + b"]" * 65, "nested more than 64 deep"),
        (b"[" * 100_000 + b"]" * 100_000, "nested more than 64 deep"),
        (b'{"a":' * 100_000, "nested more than 64 deep"),
        (b"9" * 100_000, "number that is too long"),
        (b'{"a": [1e999]}', "number that is too large"),
        (b"-1e999", "number that is too large"),
        (b"[1" + b"0" * 309 + b"]", "number that is too large"),
        (b'{"a": -1' + b"0" * 309 + b"}", "number that is too large"),
        (b"[" + b"1e-300," * 1000 + b"0.5]", "too many numbers"),
        (b"[[" + b"18446744073709551616," * 1000 + b"1], [0.5]]", "too many numbers"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"a": [{"\\uDFFF\\uD834": 1}]}', "half of a surrogate pair"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_what_is_no_json(body: bytes, sentence: str) -> None:
    """Neither is what parsers read in different ways."""
    with pytest.raises(Malformed, match="The body") as raised:
        strict_json(body)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[" * 64 + b"]" * 64,
        b'"\\ud834\\udd1e \\\\ud800"',
        b"1e308",
        b"-1" + b"0" * 308,
        b"-0",
        b' {"a":[{}]}\n',
        b"[" + b"0.5," * 999 + b"18446744073709551615, 0.5, true]",
    ],
    ids=lambda body: body[:20],
)
def test_what_is_json(body: bytes) -> None:
    """Odd, but JSON."""
    strict_json(body)
