"""The key that signs the gateway's own tokens (RFC 9068), and the published key set (RFC 7517)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from apigw.config.errors import ConfigError, problem_at
from apigw.config.files import private_key
from apigw.config.model import Origin, Path
from apigw.policy.auth.jwt.keys import Key, KeyProblem, Keys, configured_key, public_key, read_file
from apigw.policy.auth.jwt.own import OwnTokens
from apigw.policy.auth.jwt.public_keys import as_jwk, check_rsa
from apigw.policy.oauth.model import OAuth, OAuthSigning
from apigw.shared.records import FOR_EVER, Busy, Records

_MARK = 8
"""Characters that make the id of a key that was generated unique."""


@frozen(eq=False)
class Signer:
    """Signs access tokens; ``keys`` verify them: this key's public half, and those of ``accepted``.

    ``own`` is the public half if the key was generated here, without a file.
    """

    algorithm: str
    key_id: str
    keys: Keys
    _material: RSAKey | OctKey = field(repr=False)
    own: Key | None = None

    def sign(self, claims: dict[str, Any]) -> str:
        """An access token (RFC 9068). RS256 takes about a third of a millisecond."""
        header = {"alg": self.algorithm, "typ": "at+jwt", "kid": self.key_id}
        return jwt.encode(header, claims, self._material, algorithms=[self.algorithm])

    def jwks(self) -> dict[str, Any] | None:
        """The document for ``/.well-known/jwks.json``; ``None`` with HS256, which has nothing to publish."""
        if self.algorithm != "RS256":
            return None
        published = {"use": "sig", "alg": self.algorithm}
        return {"keys": [{**as_jwk(key.public), "kid": key.id, **published} for key in self.keys]}


Agree = Callable[[str, Callable[[], bytes]], bytes]
"""From a key's id, and what generates a key in PEM, to the one that all workers use."""


def load_signer(
    signing: OAuthSigning,
    origins: Mapping[Path, Origin] | None = None,
    previous: Signer | None = None,
    agree: Agree | None = None,
) -> Signer:
    """Read the keys. Raises ``ConfigError`` with the first problem of the section ``auth.oauth.signing``.

    Without a ``private_key_file``, RS256 signs with a key that is generated here, in a fraction of a second. It is kept
    as long as the process runs: a reload takes it over from ``previous``. With ``agree`` all workers have the same.
    """
    at: Path = ("auth", "oauth", "signing")
    key_id, made = signing.key_id, None
    try:
        if signing.algorithm == "RS256" and signing.private_key_file is not None:
            material: RSAKey | OctKey = _private_key(signing.private_key_file)
            own = public_key(material.public_key, key_id, ("RS256",))
        elif _is_generated(signing):
            if previous is not None and previous.own is not None and previous.key_id[:-_MARK] == f"{key_id}-":
                material, own = previous._material, previous.own
            else:
                material, own = _read(key_id, _generated() if agree is None else agree(key_id, _generated))
            key_id, made = own.id or key_id, own
        elif signing.algorithm == "HS256" and signing.secret is not None:
            own = configured_key(("HS256",), key_id, None, signing.secret)
            material = OctKey.import_key(signing.secret.value)
        else:
            raise KeyProblem("algorithm", "needs another key: RS256 signs with a private_key_file, HS256 with a secret")
        keys = [own]
        for index, other in enumerate(signing.accepted):
            at = ("auth", "oauth", "signing", "accepted", index)
            if any(other.key_id == key.id for key in keys):
                raise KeyProblem("key_id", f"{other.key_id!r} is given twice")
            keys.append(configured_key((signing.algorithm,), other.key_id, other.public_key_file, other.secret))
    except KeyProblem as error:
        raise ConfigError([problem_at(origins or {}, (*at, error.field), str(error))]) from None
    return Signer(signing.algorithm, key_id, Keys.of(keys), material, made)


def agree(keys: Records, key_id: str, generate: Callable[[], bytes]) -> bytes:
    """An ``Agree`` by the page that the workers share: the key that was generated first is that of all."""
    name = b"signing key " + key_id.encode()
    try:
        return keys.get(name, 0) or keys.first(name, b"signing key", generate(), FOR_EVER, 0)
    except Busy:
        raise KeyProblem(
            "private_key_file", "is missing, and the other workers' key cannot be had: try again"
        ) from None


def generate_for_all(signing: OAuthSigning, keys: Records) -> None:
    """Have the key in the page, if it is generated: else each worker generates one at its start, of which one counts.

    And have read it: those that this process forks share it.
    """
    if _is_generated(signing):
        with suppress(KeyProblem):
            _read(signing.key_id, agree(keys, signing.key_id, _generated))


def _is_generated(signing: OAuthSigning) -> bool:
    return signing.algorithm == "RS256" and signing.private_key_file is None and signing.secret is None


@lru_cache(1)
def _read(key_id: str, pem: bytes) -> tuple[RSAKey, Key]:
    """A generated key, and its public half with an id of its own: verifiers may have that of an earlier process."""
    key = RSAKey.import_key(pem)
    return key, public_key(key.public_key, f"{key_id}-{key.thumbprint()[:_MARK]}", ("RS256",))


def _generated() -> bytes:
    """In PEM."""
    key = generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def own_tokens(oauth: OAuth, signer: Signer) -> OwnTokens:
    """The verifier of the tokens that ``signer`` signs for ``oauth``."""
    return OwnTokens(signer.algorithm, signer.keys, oauth.issuer, oauth.audience or (oauth.issuer,))


def _private_key(path: str) -> RSAKey:
    pem = read_file("private_key_file", path)
    try:
        return signing_key(pem)
    except ValueError as error:
        raise KeyProblem("private_key_file", f"{path!r} {error}") from None


def signing_key(pem: bytes) -> RSAKey:
    """The key that signs RS256. Raises ``ValueError``: the end of a sentence that begins with its file."""
    native = private_key(pem)
    if not isinstance(native, RSAPrivateKey):
        raise ValueError("contains a private key that is not RSA, which RS256 needs")
    check_rsa(native.public_key())
    return RSAKey.import_key(native)
