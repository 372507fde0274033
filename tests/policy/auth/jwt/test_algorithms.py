"""Signatures of every algorithm: which are taken, and one table of all that are not."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from apigw.errors import Unauthorized
from apigw.policy.auth.jwt.algorithms import CURVES, PUBLIC, RSA
from apigw.policy.auth.jwt.keys import Keys, key_set, public_key
from apigw.policy.auth.jwt.model import JWTVerifier
from apigw.policy.auth.jwt.own import OwnTokens
from apigw.policy.auth.jwt.public_keys import algorithms_of, as_jwk, read_jwk
from apigw.policy.auth.jwt.tokens import Tokens
from apigw.policy.auth.model import Auth

from .test_jwt import BAD_TOKENS, BODY, GOOD, HEAD, NOW, accept, claims, encode, refuse

HASHES: dict[str, HashAlgorithm] = {"256": SHA256(), "384": SHA384(), "512": SHA512()}
ORDERS = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    "ES512": (1 << 521) - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
}
"""The orders of the curves (FIPS 186-5): r and s are below them."""
SIZES = {"ES256": 32, "ES384": 48, "ES512": 66}
ED_ORDERS = {
    "Ed25519": 2**252 + 27742317777372353535851937790883648493,
    "Ed448": 2**446 - 13818066809895115352007386748515426880336692474882178609894547503885,
}
CURVE_OF = {name: curve for curve, name in CURVES.items()}
KINDS: dict[str, type[ec.EllipticCurve]] = {
    "secp256r1": ec.SECP256R1,
    "secp384r1": ec.SECP384R1,
    "secp521r1": ec.SECP521R1,
    "secp256k1": ec.SECP256K1,
}


def private(kind: str, number: int = 0) -> Any:
    """A key for an algorithm, or on a curve: always the same for the same ``number``."""
    if kind in RSA:
        return made("RSA", number)
    return made("Ed25519" if kind == "EdDSA" else CURVE_OF.get(kind, kind), number)


@cache
def made(kind: str, number: int) -> Any:
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    if kind in KINDS:
        return ec.generate_private_key(KINDS[kind]())
    return ed448.Ed448PrivateKey.generate() if kind == "Ed448" else ed25519.Ed25519PrivateKey.generate()


def signature(algorithm: str, key: Any, text: bytes) -> bytes:
    if algorithm.startswith("RS"):
        return bytes(key.sign(text, padding.PKCS1v15(), HASHES[algorithm[2:]]))
    if algorithm.startswith("PS"):
        kind = HASHES[algorithm[2:]]
        return bytes(key.sign(text, padding.PSS(padding.MGF1(kind), kind.digest_size), kind))
    if algorithm.startswith("ES"):
        r, s = decode_dss_signature(key.sign(text, ec.ECDSA(HASHES[algorithm[2:]])))
        return joined(algorithm, r, s)
    return bytes(key.sign(text))


def joined(algorithm: str, r: int, s: int) -> bytes:
    return r.to_bytes(SIZES[algorithm], "big") + s.to_bytes(SIZES[algorithm], "big")


def text(algorithm: str, **header: Any) -> bytes:
    return encode({"alg": algorithm, **header}) + b"." + encode(claims())


def token(algorithm: str, key: Any = None, **header: Any) -> bytes:
    signed = text(algorithm, **header)
    return signed + b"." + encode(signature(algorithm, key or private(algorithm), signed))


@cache
def verifying(*algorithms: str) -> Tokens:
    """With the right key for each algorithm, without ``kid`` and ``alg``, as several providers publish them."""
    kinds = {private(each): each for each in algorithms}
    keys = Keys.of(
        public_key(key.public_key(), None, [each for each in algorithms if private(each) is key]) for key in kinds
    )
    tokens = Tokens(Auth(), own=OwnTokens(algorithms[0], keys, "https://id", ("orders",)))
    (verifier,) = tokens._verifiers
    object.__setattr__(verifier, "typ", frozenset())
    tokens._by_algorithm = {each: [verifier] for each in algorithms}
    return tokens


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_each_algorithm_verifies_what_its_key_signed(algorithm: str) -> None:
    """And neither another text, nor what another key of the kind signed."""
    tokens = verifying(algorithm)
    good = token(algorithm)
    assert accept(tokens, good).id == "alice"
    head, _, sign = good.split(b".")
    assert refuse(tokens, b".".join((head, encode(claims(sub="bob")), sign))).reason == "signature"
    assert refuse(tokens, token(algorithm, private(algorithm, 1))).reason == "signature"


def test_eddsa_is_both_curves() -> None:
    """RFC 8037 has one name for both; RFC 9864 one for each."""
    key = private("Ed448")
    keys = Keys.of([public_key(key.public_key(), None, ("EdDSA", "Ed448"))])
    (found,) = keys
    assert found.verifies("EdDSA", b"x", key.sign(b"x"))
    assert found.verifies("Ed448", b"x", key.sign(b"x"))
    assert algorithms_of(private("Ed25519").public_key()) == ("EdDSA", "Ed25519")


def by_another(algorithm: str, forged: bytes) -> bytes | None:
    """A bad token of HS256, as one of ``algorithm``; ``None`` where HS256 is what is wrong with it."""
    if forged.replace(GOOD, b"") != forged:
        return forged.replace(GOOD, token(algorithm))
    head, _, rest = forged.partition(b".")
    payload = rest.rpartition(b".")[0]
    if head != HEAD or payload == BODY or b"." in payload:
        return None
    signed = encode({"alg": algorithm}) + b"." + payload
    return signed + b"." + encode(signature(algorithm, private(algorithm), signed))


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_what_else_is_wrong_is_found_whatever_the_algorithm(algorithm: str) -> None:
    """Form, claims and times of each bad token in the table for HS256, well signed by a key of this one."""
    tokens, tried = verifying(algorithm), 0
    for row in BAD_TOKENS:
        reason, forged = row.values
        made = by_another(algorithm, forged) if isinstance(forged, bytes) and reason != "signature" else None
        if made is not None:
            tried += 1
            assert refuse(tokens, made).reason == reason, row.id
    assert tried >= 45
    assert accept(tokens, token(algorithm)).id == "alice"


Forge = Callable[[], bytes]
CASES: list[Any] = []


def case(algorithm: str, name: str, forge: Callable[[bytes], bytes], reason: str = "signature") -> None:
    """A token of ``algorithm``, with a signature that is made of its text."""

    def made() -> bytes:
        signed = text(algorithm)
        return signed + b"." + encode(forge(signed))

    CASES.append(pytest.param(algorithm, made, reason, id=f"{algorithm} {name}"))


def of(algorithm: str, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A good signature, changed."""
    return lambda signed: change(signature(algorithm, private(algorithm), signed))


def changed(algorithm: str, change: Callable[[int, int, int], tuple[int, int]]) -> Callable[[bytes], bytes]:
    """A good signature of ECDSA, with another r and s; ``change`` gets the order too."""
    size, order = SIZES[algorithm], ORDERS[algorithm]

    def forge(signed: bytes) -> bytes:
        good = signature(algorithm, private(algorithm), signed)
        r, s = int.from_bytes(good[:size], "big"), int.from_bytes(good[size:], "big")
        return joined(algorithm, *change(r, s, order))

    return forge


def constant(value: bytes, _: bytes) -> bytes:
    return value


def der(algorithm: str, text: bytes) -> bytes:
    return bytes(private(algorithm).sign(text, ec.ECDSA(HASHES[algorithm[2:]])))


def raised(size: int, order: int, good: bytes) -> bytes:
    """S is the same modulo the order, which a lax reader takes (RFC 8032 §5.1.7)."""
    return good[:size] + (int.from_bytes(good[size:], "little") + order).to_bytes(size, "little")


def with_r(r: bytes, good: bytes) -> bytes:
    return r + good[len(r) :]


def exchanged(good: bytes) -> bytes:
    half = len(good) // 2
    return good[half:] + good[:half]


def of_no_text(algorithm: str, _: bytes) -> bytes:
    kind = HASHES[algorithm[2:]]
    return bytes(private("RSA").sign(bytes(kind.digest_size), padding.PKCS1v15(), kind))


def salted(algorithm: str, length: int, text: bytes) -> bytes:
    kind = HASHES[algorithm[2:]]
    return bytes(private("RSA").sign(text, padding.PSS(padding.MGF1(kind), length), kind))


def with_another_mask(text: bytes) -> bytes:
    return bytes(private("RSA").sign(text, padding.PSS(padding.MGF1(SHA384()), 32), SHA256()))


def by(algorithm: str, kind: str = "") -> Callable[[bytes], bytes]:
    return partial(signature, algorithm, private(kind or algorithm))


for name in PUBLIC:
    case(name, "no signature", partial(constant, b""))
    case(name, "one byte", partial(constant, b"\0"))
    case(name, "a byte more", of(name, lambda good: good + b"\0"))
    case(name, "a byte before", of(name, lambda good: b"\0" + good))
    case(name, "a byte less", of(name, lambda good: good[:-1]))
    case(name, "zeros", of(name, lambda good: bytes(len(good))))
    case(name, "ones", of(name, lambda good: b"\xff" * len(good)))
    case(name, "a bit changed", of(name, lambda good: bytes([good[0] ^ 1]) + good[1:]))
    case(name, "twice", of(name, lambda good: good + good))
    case(name, "of 4 KB", of(name, lambda good: good + bytes(4000)))

for name in SIZES:
    case(name, "r = 0, s = 0", changed(name, lambda r, s, n: (0, 0)))
    case(name, "r = 0", changed(name, lambda r, s, n: (0, s)))
    case(name, "s = 0", changed(name, lambda r, s, n: (r, 0)))
    case(name, "r = n, s = n", changed(name, lambda r, s, n: (n, n)))
    case(name, "r = n", changed(name, lambda r, s, n: (n, s)))
    case(name, "s = n", changed(name, lambda r, s, n: (r, n)))
    case(name, "r = 1, s = 1", changed(name, lambda r, s, n: (1, 1)))
    case(name, "r = n - 1, s = n - 1", changed(name, lambda r, s, n: (n - 1, n - 1)))
    case(name, "r and s exchanged", of(name, exchanged))
    case(name, "-r", changed(name, lambda r, s, n: (n - r, s)))
    case(name, "DER", partial(der, name))
case("ES512", "r + n", changed("ES512", lambda r, s, n: (r + n, s)))
case("ES512", "s + n", changed("ES512", lambda r, s, n: (r, s + n)))
case("ES256", "by a key of another curve", by("ES256", "secp256k1"))
case("ES256", "by P-384, cut", lambda signed: by("ES384")(signed)[:64])
case("ES384", "by P-256", by("ES256"))

for name, size in (("Ed25519", 32), ("Ed448", 57)):
    case(name, "S + L", of(name, partial(raised, size, ED_ORDERS[name])))
    case(name, "R = 1, S = 0", partial(constant, (1).to_bytes(size, "little") + bytes(size)))
    case(name, "R is no canonical encoding", of(name, partial(with_r, b"\xff" * size)))
    case(name, "R and S exchanged", of(name, exchanged))

for name, other in (("RS256", "RS384"), ("RS384", "RS512"), ("RS512", "RS256")):
    case(name, "PSS", by("PS" + name[2:]))
    case(name, "with another hash", by(other))
    case(name, "of no text", partial(of_no_text, name))
for name in ("PS256", "PS384", "PS512"):
    case(name, "PKCS #1 v1.5", by("RS" + name[2:]))
    for length in (0, 20):
        case(name, f"salt of {length} bytes", partial(salted, name, length))
case("PS256", "MGF1 with another hash", with_another_mask)


@pytest.mark.parametrize(("algorithm", "forged", "reason"), CASES)
def test_no_other_signature_is_taken(algorithm: str, forged: Forge, reason: str) -> None:
    """Each is 401, and none is an error of ours."""
    assert refuse(verifying(algorithm), forged()).reason == reason


EVERY = ("RS256", "PS384", "ES256", "ES384", "EdDSA")
"""With the key of each."""


def encodings(key: Any) -> list[bytes]:
    """All that somebody could take for a secret."""
    public = key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return [pem, pem.rstrip(), der, json.dumps(as_jwk(public)).encode(), b""]


@pytest.mark.parametrize("name", EVERY)
def test_no_public_key_is_a_secret(name: str) -> None:
    """Confusion of HS256 with another algorithm (CVE-2015-9235), with every encoding of the key."""
    for secret in encodings(private(name)):
        signed = text("HS256")
        forged = signed + b"." + encode(hmac.digest(secret, signed, "sha256"))
        assert refuse(verifying(*EVERY), forged).reason == "algorithm"


@pytest.mark.parametrize(
    "claimed", [*PUBLIC, "HS256", "HS384", "none", "ES256K", "es256", "RS1", "", "EdDSA ", "Ed25519ph"]
)
@pytest.mark.parametrize("name", EVERY)
def test_a_key_is_used_for_its_own_algorithm_alone(name: str, claimed: str) -> None:
    """Whatever algorithm the header claims, with a signature that the key made by its own."""
    signed = encode({"alg": claimed}) + b"." + encode(claims())
    forged = signed + b"." + encode(signature(name, private(name), signed))
    if claimed == name:
        assert accept(verifying(*EVERY), forged).id == "alice"
    else:
        assert refuse(verifying(*EVERY), forged).reason in ("algorithm", "signature")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"crit": ["exp"]}, "critical"),
        ({"crit": []}, "critical"),
        ({"crit": None}, "critical"),
        ({"b64": False}, "critical"),
        ({"b64": False, "crit": ["b64"]}, "critical"),
        ({"b64": "true"}, "critical"),
        ({"kid": 1}, "malformed"),
        ({"kid": ["a"]}, "malformed"),
        ({"kid": "x" * 257}, "malformed"),
        ({"typ": 1}, "malformed"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", EVERY)
def test_a_header_that_is_not_understood_is_refused(name: str, header: dict[str, Any], reason: str) -> None:
    """With a good signature, whatever the algorithm."""
    assert refuse(verifying(*EVERY), token(name, **header)).reason == reason


@pytest.mark.parametrize("name", EVERY)
def test_a_key_in_the_token_is_none(name: str) -> None:
    """``jwk`` in the header is not looked at."""
    mine = private(name, 7)
    assert refuse(verifying(*EVERY), token(name, mine, jwk=as_jwk(mine.public_key()))).reason == "signature"


def jwk_of(name: str, **members: Any) -> dict[str, Any]:
    return {**as_jwk(private(name).public_key()), **members}


def used(*members: dict[str, Any], algorithms: tuple[str, ...] = PUBLIC) -> list[tuple[str | None, list[str]]]:
    document = json.dumps({"keys": [*members]}).encode()
    return [(key.id, sorted(key.prepared)) for key in key_set(document, algorithms)]


def test_keys_of_a_mixed_set_are_pinned_to_what_they_can_do() -> None:
    """By type and curve; with ``alg`` to that alone; those for other uses are left out."""
    found = used(
        jwk_of("RSA", kid="any"),
        jwk_of("RSA", kid="one", alg="PS256"),
        jwk_of("RSA", kid="enc", use="enc"),
        jwk_of("RSA", kid="oaep", alg="RSA-OAEP"),
        jwk_of("ES256", kid="p256"),
        jwk_of("ES384", kid="p384", alg="ES384"),
        jwk_of("ES512", kid="mismatch", alg="ES256"),
        jwk_of("Ed25519", kid="ed"),
        jwk_of("Ed448", kid="ed448", alg="EdDSA"),
        {"kty": "oct", "kid": "secret", "k": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"},
        {"kty": "OKP", "crv": "X25519", "kid": "x", "x": "A" * 43},
        {"kty": "EC", "crv": "secp256k1", "kid": "k1", "x": "A" * 43, "y": "A" * 43},
    )
    assert found == [
        ("any", sorted(RSA)),
        ("one", ["PS256"]),
        ("p256", ["ES256"]),
        ("p384", ["ES384"]),
        ("ed", ["Ed25519", "EdDSA"]),
        ("ed448", ["EdDSA"]),
    ]
    assert used(jwk_of("RSA"), jwk_of("ES256"), algorithms=("ES256", "RS256")) == [(None, ["RS256"]), (None, ["ES256"])]


def shifted(jwk: dict[str, Any], member: str) -> dict[str, Any]:
    letter = jwk[member][0]
    return {**jwk, member: ("A" if letter != "A" else "B") + jwk[member][1:]}


BAD_KEYS = {
    "EC: not on its curve": lambda: shifted(jwk_of("ES256"), "x"),
    "EC: of another curve": lambda: jwk_of("ES256", crv="P-384"),
    "EC: the point at infinity": lambda: jwk_of("ES256", x="A" * 43, y="A" * 43),
    "EC: x is short": lambda: jwk_of("ES256", x=jwk_of("ES256")["x"][:-2]),
    "EC: no y": lambda: {key: value for key, value in jwk_of("ES256").items() if key != "y"},
    "EC: crv is a list": lambda: jwk_of("ES256", crv=["P-256"]),
    "EC: x is a number": lambda: jwk_of("ES256", x=1),
    "OKP: short": lambda: jwk_of("Ed25519", x=jwk_of("Ed25519")["x"][:-2]),
    "OKP: of another curve": lambda: jwk_of("Ed25519", crv="Ed448"),
    "OKP: as EC": lambda: jwk_of("Ed25519", kty="EC"),
    "RSA: as EC": lambda: jwk_of("RSA", kty="EC"),
    "RSA: the modulus is even": lambda: {
        **jwk_of("RSA"),
        "n": encode((private("RSA").public_key().public_numbers().n - 1).to_bytes(256, "big")).decode(),
    },
    "RSA: standard base64": lambda: jwk_of("RSA", n="+" + jwk_of("RSA")["n"][1:]),
    "RSA: padding": lambda: jwk_of("RSA", e="AQAB===="),
}


@pytest.mark.parametrize("jwk", [pytest.param(make, id=name) for name, make in BAD_KEYS.items()])
def test_a_broken_key_is_passed_over(jwk: Callable[[], dict[str, Any]]) -> None:
    """The other keys of its set are used; alone, the set is refused."""
    assert used(jwk(), jwk_of("ES384", kid="good")) == [("good", ["ES384"])]
    with pytest.raises(ValueError, match="without a key for any algorithm: 1 that "):
        used(jwk())


P25519 = 2**255 - 19


def order_8() -> int:
    """The y of a point of order 8: x² = y² = -(1 ± sqrt(1 + d)) / d, from doubling to (±sqrt(-1), 0)."""
    d = -121665 * pow(121666, -1, P25519) % P25519
    root = pow(1 + d, (P25519 + 3) // 8, P25519)
    if root * root % P25519 != (1 + d) % P25519:
        root = root * pow(2, (P25519 - 1) // 4, P25519) % P25519
    for sign in (root, -root):
        square = -(1 + sign) * pow(d, -1, P25519) % P25519
        y = pow(square, (P25519 + 3) // 8, P25519)
        if y * y % P25519 != square:
            y = y * pow(2, (P25519 - 1) // 4, P25519) % P25519
        if y * y % P25519 == square:
            return y
    raise AssertionError


P448 = 2**448 - 2**224 - 1
SMALL = {
    "neutral": ("Ed25519", 1, 32),
    "order 2": ("Ed25519", P25519 - 1, 32),
    "order 4": ("Ed25519", 0, 32),
    "order 4, other sign": ("Ed25519", 0 | 1 << 255, 32),
    "order 8": ("Ed25519", order_8(), 32),
    "order 8, other": ("Ed25519", P25519 - order_8(), 32),
    "neutral, not canonical": ("Ed25519", P25519 + 1, 32),
    "order 4, not canonical": ("Ed25519", P25519, 32),
    "not on the curve": ("Ed25519", 2, 32),
    "Ed448: neutral": ("Ed448", 1, 57),
    "Ed448: order 2": ("Ed448", P448 - 1, 57),
    "Ed448: order 4": ("Ed448", 0, 57),
    "Ed448: not canonical": ("Ed448", P448 + 1, 57),
}


@pytest.mark.parametrize(("curve", "number", "size"), [pytest.param(*each, id=name) for name, each in SMALL.items()])
def test_no_edwards_key_of_small_order_is_used(curve: str, number: int, size: int) -> None:
    """With such a key anybody makes signatures; nor is one used that is not the one encoding of a point."""
    raw = number.to_bytes(size, "little")
    with pytest.raises(ValueError, match=r"malformed|small order"):
        algorithms_of(read_jwk({"kty": "OKP", "crv": curve, "x": encode(raw).decode()}))


def test_openssl_would_take_a_key_of_small_order() -> None:
    """So the check above is needed: this signature holds for every text."""
    neutral = ed25519.Ed25519PublicKey.from_public_bytes((1).to_bytes(32, "little"))
    neutral.verify((1).to_bytes(32, "little") + bytes(32), b"any text")


def test_a_verifier_takes_only_the_algorithms_that_it_names(tmp_path: Any) -> None:
    """A key set may have keys for more; without names all of them but HS256."""
    file = tmp_path / "set.json"
    file.write_text(
        json.dumps({"keys": [jwk_of("RSA", kid="a"), jwk_of("ES256", kid="b"), jwk_of("Ed25519", kid="c")]})
    )

    def taken(*algorithms: str) -> list[str]:
        tokens = Tokens(Auth((JWTVerifier("id", algorithms, jwks_file=str(file)),)))
        found = []
        for name in ("RS256", "PS512", "ES256", "EdDSA"):
            try:
                tokens.authenticate([b"Bearer " + token(name)], NOW)
            except Unauthorized as error:
                assert error.reason == "algorithm"
            else:
                found.append(name)
        return found

    assert taken() == ["RS256", "PS512", "ES256", "EdDSA"]
    assert taken("RS256") == ["RS256"]
    assert taken("ES256", "PS512") == ["PS512", "ES256"]
