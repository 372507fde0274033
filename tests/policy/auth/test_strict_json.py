"""JSON from outside: whatever it is, it is read strictly or refused, and never breaks who reads it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigw.policy.auth.jwt.keys import key_set
from apigw.policy.auth.jwt.tokens import Tokens
from apigw.policy.auth.model import Auth
from apigw.policy.auth.strict_json import MAX_DEPTH, RepeatedName, parse, parse_object

from .jwt.test_jwt import HS, NOW, SECRET, claims, encode, jwk, refuse, sign, using


def deep(depth: int, opening: bytes = b"[", innermost: bytes = b"1", closing: bytes = b"]") -> bytes:
    return opening * depth + innermost + closing * depth


HOSTILE = {
    "empty": b"",
    "a BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "not UTF-8": b'{"a": "\xff"}',
    "a surrogate in UTF-8": b'{"a": "\xed\xa0\x80"}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "a number of 5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "a name twice": b'{"a": 1, "a": 1}',
    "a name twice, written in two ways": b'{"a": 1, "\\u0061": 1}',
    "a name twice, far down": b'{"x": [[{"a": 1, "a": 1}]]}',
    "a control character": b'{"a": "\n"}',
    "an end that is missing": b'{"a": 1',
    "something behind the end": b"{} {}",
    "a list": b"[1]",
    "a text": b'"a"',
    "null": b"null",
    "one too deep": b'{"a":' + deep(MAX_DEPTH) + b"}",
    "deep maps": deep(500, b'{"a":', b"1", b"}"),
    "deep, behind a text with brackets": b'{"]]]]": "}\\"]", "a":' + deep(900) + b"}",
    "deep, behind a text without an end": b'"' * 3 + b"[" * 4000,
    "open brackets alone": b"[" * 6000,
    "backslashes and quotes": b'"\\' * 3000 + b"[" * 2000,
    "5 MB in one text, and no end": b'{"a": "' + b"x" * 5_000_000,
}
"""What is no JSON object for a careful reader."""


@pytest.mark.parametrize("document", [pytest.param(value, id=name) for name, value in HOSTILE.items()])
def test_a_document_that_is_no_object_is_a_value_error(document: bytes) -> None:
    """That says why, and quotes nothing of it; a token or a key set of it is refused like any other bad one."""
    with pytest.raises(ValueError, match=r"^(not a JSON|a name occurs twice|lists or maps)") as caught:
        parse_object(document)
    assert caught.value.__cause__ is None
    with pytest.raises(ValueError, match=r"contains no key set|is a key set larger"):
        key_set(document, ("RS256",))
    authenticator = using(HS)
    if document and len(document) < 6000:
        assert refuse(authenticator, sign(document, claims())).reason == "malformed"
        assert refuse(authenticator, sign({"alg": "HS256"}, document)).reason == "malformed"


@pytest.mark.parametrize("where", ["header", "claims"])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_token_of_any_depth_is_malformed_however_deep_the_stack_is(where: str, opening: str) -> None:
    """The parser's own bound depends on the stack: no depth may pass ours and fail there, or fail elsewhere."""
    authenticator = using(HS)
    closing = "]" if opening == "[" else "}"
    for depth in range(MAX_DEPTH, 600 if opening == "[" else 300, 13):
        nested = f'"x": {opening * depth}1{closing * depth}'
        header = f'{{"alg": "HS256", {nested}}}' if where == "header" else '{"alg": "HS256"}'
        payload = json.dumps(claims())
        if where == "claims":
            payload = f"{payload[:-1]}, {nested}}}"
        assert refuse(authenticator, sign(header.encode(), payload.encode())).reason == "malformed"


def test_a_header_that_only_python_could_read_is_malformed() -> None:
    """At each depth around that at which Python's parser gives up, and with no signature that could be checked."""
    authenticator = Tokens(Auth((HS,)))
    for depth in range(900, 1000):
        header = b'{"alg":"HS256","x":' + deep(depth) + b"}"
        assert refuse(authenticator, encode(header) + b".e30.AAAA").reason == "malformed"


@pytest.mark.parametrize(
    "document",
    [
        b'{"a": ' + deep(MAX_DEPTH - 1) + b"}",
        b'{"a": "' + b"[{" * 2000 + b'"}',
        b'{"a": "\\"' + b"[" * 2000 + b'\\\\"}',
        b'{"a": [' + b"[]," * 500 + b"[]]}",
        b'{"a": 1e999, "b": -0, "c": "\\ud800"}',
    ],
)
def test_an_odd_document_that_is_an_object_is_read(document: bytes) -> None:
    """Brackets in texts, and beside one another, are not deep."""
    assert parse_object(document) == json.loads(document)


@pytest.mark.parametrize(
    "member",
    [
        {"n": "9" * 5000},
        {"n": 7},
        {"n": "\ud800"},
        {"n": ""},
        {"e": ""},
        {"e": "AA"},
        {"e": 65537},
        {"e": [[]]},
        {"kid": {}},
        {"kid": ""},
        {"kid": "k" * 300},
        {"alg": []},
        {"use": {}},
        {"kty": ["RSA"]},
        {"key_ops": "verify"},
        {"key_ops": [{}]},
    ],
    ids=str,
)
def test_a_key_with_odd_members_is_passed_over(member: dict[str, object]) -> None:
    """The good one beside it verifies."""
    keys = key_set(json.dumps({"keys": [jwk(0, **member), jwk(1, kid="good"), None, 7, [], "x"]}).encode(), ("RS256",))
    assert [key.id for key in keys] == ["good"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": 10**400}, "claims"),
        ({"exp": -(10**4000)}, "claims"),
        ({"exp": 1e308}, "claims"),
        ({"nbf": [NOW]}, "claims"),
        ({"iss": "\ud800"}, "issuer"),
        ({"iss": ["https://id"]}, "issuer"),
        ({"iss": {}}, "issuer"),
        ({"aud": "\ud800"}, "audience"),
        ({"aud": [{}]}, "claims"),
        ({"sub": "\ud800"}, "claims"),
        ({"sub": "x" * 4000}, "claims"),
    ],
    ids=str,
)
def test_odd_claims_are_refused_with_their_reason(changes: dict[str, object], reason: str) -> None:
    """None is an error of the gateway."""
    assert refuse(using(HS), sign({"alg": "HS256"}, claims(**changes), SECRET)).reason == reason


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": 7},
        {"jwk": {"kty": "oct", "k": "\ud800"}},
        {"x5c": "\ud800"},
        {"cty": []},
        {"jku": {}},
        {"x5u": 10**4000},
        {"typ": "\ud800"},
        {"\ud800": "\ud800"},
    ],
    ids=str,
)
def test_odd_members_of_a_header_are_ignored_or_refused(header: dict[str, object]) -> None:
    """A token of them is taken, or is a 401."""
    token = sign({"alg": "HS256", **header}, claims())
    authenticator = using(HS)
    try:
        assert authenticator.authenticate([b"Bearer " + token], NOW) is not None
    except Exception as error:
        assert getattr(error, "status", None) == 401


@given(st.binary(max_size=400) | st.text(alphabet='[]{}":,\\a1', max_size=400).map(str.encode))
def test_reading_ends_in_a_value_or_a_value_error(document: bytes) -> None:
    """And agrees with Python's own reader about what is read."""
    try:
        value = parse(document)
    except RepeatedName:
        return
    except ValueError as error:
        assert str(error) in ("not a JSON document", "lists or maps that lie too deep in one another")
        return
    assert value == json.loads(document)
