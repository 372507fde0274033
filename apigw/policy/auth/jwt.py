# Compiled: see docs/decisions/compiled.md
"""Authentication by JSON Web Tokens in ``Authorization: Bearer`` (RFC 6750, 7515, 7519, with the advice of RFC 8725).

Errors name the reason, but contain no part of a key or token.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from joserfc.jws import CompactSignature
from joserfc.util import urlsafe_b64decode
from twisted.internet.defer import Deferred

from apigw.config.errors import ConfigError, Problem, problem_at
from apigw.config.forms import name as check_name
from apigw.config.model import Origin, Path
from apigw.contract.principal import Principal
from apigw.errors import AuthUnavailable
from apigw.policy.auth.jwks import KeySet
from apigw.policy.auth.keys import (
    KEY_TYPES,
    MAX_KEY_ID,
    Key,
    KeyProblem,
    Keys,
    apart,
    configured_key,
    key_set,
    read_file,
)
from apigw.policy.auth.model import Auth, JWTVerifier
from apigw.policy.auth.own import ACCESS_TOKEN_TYPES, PROVIDER, OwnTokens
from apigw.policy.auth.principal import WRONG_ISSUER, ClaimRules, Refusal
from apigw.policy.auth.strict_json import RepeatedName, parse_object

MAX_TOKEN = 8 * 1024
CACHED_TOKENS = 16_384
CACHED_BYTES = 16 * 1024 * 1024

SEVERAL = Refusal("several", "the Authorization header occurs more than once", "invalid_request")
TOO_LARGE = Refusal("too_large", f"the token is larger than {MAX_TOKEN // 1024} KiB")
MALFORMED = Refusal("malformed", "the token is not a well-formed signed JWT")
REPEATED = Refusal("malformed", "a name occurs twice in the token")
ALGORITHM = Refusal("algorithm", "the algorithm of the token is not accepted")
CRITICAL = Refusal("critical", "the token demands an extension that is not understood")
WRONG_TYPE = Refusal("type", "the token is not an access token")
UNKNOWN_KEY = Refusal("unknown_key", "no key is known that could verify the token")
SIGNATURE = Refusal("signature", "the signature of the token is wrong")

_PARTS = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")


@frozen(eq=False)
class _Verifier:
    """One algorithm, one set of keys, one set of rules.

    Where the configuration itself names the keys, ``key_ids`` are their ids. ``typ`` is what the header's must be.
    """

    rules: ClaimRules
    keys: Keys | KeySet
    key_ids: frozenset[str | None] = frozenset()
    typ: frozenset[str] = frozenset()

    def apart_from(self, other: _Verifier) -> bool:
        """Whether no token could be meant for both: by their issuers, or else by the ids of their keys."""
        return apart(self.rules.issuer, self.key_ids, other.rules.issuer, other.key_ids)

    def same_as(self, other: _Verifier) -> bool:
        """Whether both accept the same tokens, and say the same of them."""
        mine, others = self.keys, other.keys
        same_keys = mine.same_as(others) if isinstance(mine, Keys) and isinstance(others, Keys) else mine is others
        rules: object = self.rules  # attrs compares it by value, but to mypyc it would be equal to itself alone
        return same_keys and rules == other.rules and self.key_ids == other.key_ids and self.typ == other.typ


@frozen(eq=False, repr=False)
class _Token:
    """A token that has not been verified yet. It has no repr, because that would be the token."""

    raw: bytes
    kid: str | None
    parts: CompactSignature
    claims: dict[str, Any]
    verifier: _Verifier


class Authenticator:
    """Verifies tokens by all verifiers of a configuration.

    Each snapshot has one, with its cache of verified tokens (``take_over``). Construction reads the key files, in any
    thread, and raises ``ConfigError``. ``key_sets`` has a ``KeySet`` for each ``jwks_url``
    (``jwks.carry_over``); the caller starts and stops them. ``own`` are the tokens that
    the gateway issues, if it does.
    """

    def __init__(
        self,
        auth: Auth,
        key_sets: Mapping[str, KeySet] | None = None,
        own: OwnTokens | None = None,
        origins: Mapping[Path, Origin] | None = None,
    ) -> None:
        self._seen: OrderedDict[bytes, tuple[Principal, Key]] = OrderedDict()
        self._seen_bytes = 0
        self._verifiers = _verifiers(auth, key_sets or {}, own, origins or {})

    def take_over(self, previous: Authenticator) -> None:
        """Take from ``previous``, which was in use until now, the verified tokens of all verifiers that are unchanged.

        A reload would otherwise have the tokens of all callers verified anew, at up to a tenth of a millisecond each.
        They are moved, not shared: a request that began before the reload may still verify one by ``previous``.
        """
        if previous is self:
            return
        before = previous._by_provider()
        unchanged = {
            provider
            for provider, verifier in self._by_provider().items()
            if provider in before and verifier.same_as(before[provider])
        }
        self._seen, previous._seen = previous._seen, OrderedDict()
        self._seen_bytes, previous._seen_bytes = previous._seen_bytes, 0
        if unchanged != before.keys():
            for as_usual, (principal, _) in list(self._seen.items()):
                if principal.provider not in unchanged:
                    self._forget(as_usual)

    def _by_provider(self) -> dict[str, _Verifier]:
        """The names of verifiers are unique, and every principal has that of its own."""
        return {each.rules.provider: each for found in self._verifiers.values() for each in found}

    def authenticate(self, authorization: Sequence[bytes], now: float) -> Principal | Deferred[Principal] | None:
        """The caller with these ``Authorization`` values at ``now`` (Unix seconds); ``None`` without a bearer token.

        Returns a ``Deferred`` only if a key set must be fetched first; cancel it when the caller leaves. Raises, or
        fires with, ``Unauthorized`` for a bad token and ``AuthUnavailable`` if its keys are unavailable.
        """
        known = self.remembered(authorization, now)
        return self.verify(authorization, now) if known is None else known

    def remembered(self, authorization: Sequence[bytes], now: float) -> Principal | None:
        """Who sends these values, where their token was verified before and still holds."""
        if len(authorization) == 1:
            # Looked up by the hash of all of the token, which Python keeps secret: no prefix can be found by timing
            known = self._seen.get(authorization[0])
            if known is not None:
                principal, key = known
                if principal.begins <= now < principal.expires and not key.retired:
                    self._seen.move_to_end(authorization[0])
                    return principal
        return None

    def verify(self, authorization: Sequence[bytes], now: float) -> Principal | Deferred[Principal] | None:
        """What ``authenticate`` does where nothing is ``remembered``."""
        if not authorization:
            return None
        if len(authorization) > 1:
            raise SEVERAL()
        scheme, _, raw = authorization[0].partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        raw = raw.strip(b" ")
        as_usual = b"Bearer " + raw
        if as_usual != authorization[0]:
            # any spelling of the scheme is the same token: one caller must not fill the cache with spellings
            return self.authenticate([as_usual], now)
        self._forget(as_usual)
        token = self._read(raw)
        key = _verifying_key(token)
        if key is not None:
            return self._accept(token, key, now)
        source = token.verifier.keys
        waiting = source.wanted() if isinstance(source, KeySet) else None
        if waiting is None:
            raise _no_key(token)
        return waiting.addCallback(self._authenticate_again, token, now)

    def _authenticate_again(self, _: None, token: _Token, now: float) -> Principal:
        key = _verifying_key(token)
        if key is None:
            raise _no_key(token)
        return self._accept(token, key, now)

    def _read(self, raw: bytes) -> _Token:
        """Take a token apart and find its verifier; raises ``Unauthorized`` if that is not possible."""
        if len(raw) > MAX_TOKEN:
            raise TOO_LARGE()
        segments = _PARTS.fullmatch(raw)
        if segments is None:
            raise MALFORMED()
        try:
            header = parse_object(urlsafe_b64decode(segments[1]))
            verifiers = self._verifiers.get(header.get("alg", ""))
            if verifiers is None:
                raise ALGORITHM()
            if "crit" in header or header.get("b64", True) is not True:
                raise CRITICAL()
            kid, typ = header.get("kid"), header.get("typ", "")
            if not isinstance(typ, str) or not (kid is None or (isinstance(kid, str) and len(kid) <= MAX_KEY_ID)):
                raise MALFORMED()
            parts = CompactSignature(header, urlsafe_b64decode(segments[2]))
            claims = parse_object(parts.payload)
        except RepeatedName:
            raise REPEATED() from None
        except (ValueError, TypeError):
            raise MALFORMED() from None
        parts.segments = {"header": segments[1], "payload": segments[2], "signature": segments[3]}
        verifier = _meant(verifiers, claims.get("iss"), kid)
        if verifier.typ and typ.lower() not in verifier.typ:
            raise WRONG_TYPE()
        return _Token(raw, kid, parts, claims, verifier)

    def _accept(self, token: _Token, key: Key, now: float) -> Principal:
        principal = token.verifier.rules.principal(token.claims, now)
        principal.document = bytes(token.parts.payload)
        as_usual = b"Bearer " + token.raw
        self._forget(as_usual)
        self._seen[as_usual] = principal, key
        self._seen_bytes += len(as_usual)
        while len(self._seen) > CACHED_TOKENS or self._seen_bytes > CACHED_BYTES:
            self._seen_bytes -= len(self._seen.popitem(last=False)[0])
        return principal

    def _forget(self, as_usual: bytes) -> None:
        if self._seen.pop(as_usual, None) is not None:
            self._seen_bytes -= len(as_usual)


def _meant(verifiers: list[_Verifier], issuer: object, kid: str | None) -> _Verifier:
    """The verifier for a token with this ``iss`` and ``kid``. Raises ``Unauthorized`` if there is none."""
    fitting = [verifier for verifier in verifiers if verifier.rules.issuer in (None, issuer)]
    if not fitting:
        raise WRONG_ISSUER()
    if len(fitting) > 1:
        fitting = [verifier for verifier in fitting if kid in verifier.key_ids]
        if not fitting:
            raise UNKNOWN_KEY()
    return fitting[0]


def _verifying_key(token: _Token) -> Key | None:
    """The key that verifies ``token``; ``None`` if that may be one that we lack. Raises ``Unauthorized`` if not."""
    source = token.verifier.keys
    keys = source if isinstance(source, Keys) else source.keys
    if keys is None:
        return None
    named = keys.named.get(token.kid, ()) if token.kid is not None else ()
    for key in named or keys.nameless:
        if key.verifies(token.parts):
            return key
    if named:
        raise SIGNATURE()
    return None


def _no_key(token: _Token) -> Exception:
    source = token.verifier.keys
    if isinstance(source, KeySet):
        unavailable: AuthUnavailable | None = source.unavailable()
        if unavailable is not None or source.keys is None:
            return unavailable or AuthUnavailable()
        source = source.keys
    return SIGNATURE() if source.nameless else UNKNOWN_KEY()


def _verifiers(
    auth: Auth, key_sets: Mapping[str, KeySet], own: OwnTokens | None, origins: Mapping[Path, Origin]
) -> dict[str, list[_Verifier]]:
    """By algorithm. Raises ``ConfigError`` for unusable keys, and where two could accept the same token."""
    found: dict[str, list[_Verifier]] = {}
    problems: list[Problem] = []
    names = {PROVIDER} if own is not None else set[str]()

    def problem(sentence: str, *path: str | int) -> None:
        problems.append(problem_at(origins, ("auth", *path), sentence))

    if own is not None:
        rules = ClaimRules(PROVIDER, own.issuer, frozenset(own.audience))
        found[own.algorithm] = [_Verifier(rules, own.keys, frozenset(own.keys.named), ACCESS_TOKEN_TYPES)]
    for index, jwt in enumerate(auth.jwt):
        try:
            check_name(jwt.name)
        except ValueError as error:
            problem(f"{jwt.name!r} {error}", "jwt", index, "name")
        if jwt.name in names:
            sentence = f"{jwt.name!r} is another verifier's name, so their users could not be told apart"
            problem(sentence, "jwt", index, "name")
        names.add(jwt.name)
        if jwt.algorithm not in KEY_TYPES:
            problem(f"{jwt.algorithm!r} is not one of {', '.join(KEY_TYPES)}", "jwt", index, "algorithm")
            continue
        rules = ClaimRules(jwt.name, jwt.issuer, frozenset(jwt.audience), jwt.leeway, jwt.user_claim, jwt.roles_claim)
        try:
            keys = _keys(jwt, key_sets)
        except KeyProblem as error:
            problem(str(error), "jwt", index, error.field)
            continue
        one_key = isinstance(keys, Keys) and jwt.jwks_file is None and jwt.key_id is not None
        verifier = _Verifier(rules, keys, frozenset({jwt.key_id} if one_key else ()))
        others = found.setdefault(jwt.algorithm, [])
        if not all(map(verifier.apart_from, others)):
            problem("could accept the same tokens as another: give each its own issuer", "jwt", index)
        others.append(verifier)
    if problems:
        raise ConfigError(problems)
    return found


def _keys(jwt: JWTVerifier, key_sets: Mapping[str, KeySet]) -> Keys | KeySet:
    """The keys of one verifier. Raises ``KeyProblem``."""
    if jwt.jwks_url is not None:
        if jwt.algorithm != "RS256":
            raise KeyProblem("jwks_url", "does not fit HS256: a secret must not be published")
        return key_sets[jwt.jwks_url]
    if jwt.jwks_file is not None:
        try:
            return key_set(read_file("jwks_file", jwt.jwks_file), jwt.algorithm)
        except KeyProblem:
            raise
        except ValueError as error:
            raise KeyProblem("jwks_file", f"{jwt.jwks_file!r} {error}") from None
    return Keys.of([configured_key(jwt.algorithm, jwt.key_id, jwt.public_key_file, jwt.secret)])
