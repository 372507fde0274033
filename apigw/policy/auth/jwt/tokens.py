# Compiled: see docs/decisions/compiled.md
"""Authentication by JSON Web Tokens in ``Authorization: Bearer`` (RFC 6750, 7515, 7519, with the advice of RFC 8725).

Errors name the reason, but contain no part of a key or token.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from apigw.config.model import Origin, Path
from apigw.contract.principal import Principal
from apigw.errors import AuthUnavailable, Unauthorized
from apigw.policy.auth.jwt.claims import WRONG_ISSUER
from apigw.policy.auth.jwt.jwks import KeySet, Source
from apigw.policy.auth.jwt.keys import MAX_KEY_ID, Key, Keys
from apigw.policy.auth.jwt.own import OwnTokens
from apigw.policy.auth.jwt.verifiers import Verifier, verifiers
from apigw.policy.auth.method import Method, Providers, after_scheme
from apigw.policy.auth.model import Auth
from apigw.policy.auth.refusals import BEARER, SEVERAL, WRONG_PROVIDER, Refusal
from apigw.policy.auth.strict_json import RepeatedName, parse_object
from apigw.wire.request import Request

CACHED_TOKENS = 16_384
CACHED_HEADERS = 64
"""Of good tokens: all of one key have the same. Reading one takes 6 µs."""
CACHED_BYTES = 16 * 1024 * 1024

MALFORMED = Refusal("malformed", "the token is not a well-formed signed JWT")
REPEATED = Refusal("malformed", "a name occurs twice in the token")
ALGORITHM = Refusal("algorithm", "the algorithm of the token is not accepted")
CRITICAL = Refusal("critical", "the token demands an extension that is not understood")
WRONG_TYPE = Refusal("type", "the token is not an access token")
UNKNOWN_KEY = Refusal("unknown_key", "no key is known that could verify the token")
SIGNATURE = Refusal("signature", "the signature of the token is wrong")

_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
"""Makes base64url what ``binascii`` reads, and what is none something that it refuses."""
_LAST = {0: b"", 1: b"AEIMQUYcgkosw048", 2: b"AQgw"}
"""Characters with which it may end, by the missing padding: the bits that are left over are zero (RFC 4648 §3.5)."""


class Header:
    """A token's header. ``typ`` is in lower case, and without ``application/``."""

    def __init__(self, algorithm: str, kid: str | None, typ: str) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.typ = typ


class Token:
    """A token that has not been verified yet. It has no repr, because that would be the token."""

    def __init__(
        self,
        as_usual: bytes,
        head: bytes,
        header: Header,
        signed: bytes,
        signature: bytes,
        payload: bytes,
        claims: dict[str, Any],
        verifier: Verifier,
    ) -> None:
        self.as_usual = as_usual
        self.head = head
        self.header = header
        self.algorithm = header.algorithm
        self.kid = header.kid
        self.signed = signed
        self.signature = signature
        self.payload = payload
        self.claims = claims
        self.verifier = verifier


class Tokens(Method):
    """Verifies tokens by all verifiers of a configuration.

    Each snapshot has one, with its cache of verified tokens (``take_over``). Construction reads the key files, in any
    thread, and raises ``ConfigError``. ``key_sets`` has a ``KeySet`` for each source (``jwks.carry_over``); the caller
    starts and stops them. ``own`` are the tokens that the gateway issues, if it does.
    """

    def __init__(
        self,
        auth: Auth,
        key_sets: Mapping[Source, KeySet] | None = None,
        own: OwnTokens | None = None,
        origins: Mapping[Path, Origin] | None = None,
    ) -> None:
        super().__init__(b"authorization")
        self._seen: OrderedDict[bytes, tuple[Principal, Key]] = OrderedDict()
        self._seen_bytes = 0
        self._largest = auth.max_token_size
        self._headers: dict[bytes, Header] = {}
        self._verifiers = verifiers(auth.jwt, key_sets or {}, own, origins or {})
        self._by_algorithm: dict[str, list[Verifier]] = {}
        for verifier in self._verifiers:
            for algorithm in verifier.algorithms:
                self._by_algorithm.setdefault(algorithm, []).append(verifier)

    def take_over(self, previous: Method) -> None:
        """Take from ``previous``, which was in use until now, the verified tokens of all verifiers that are unchanged.

        A reload would otherwise have the tokens of all callers verified anew, at up to a tenth of a millisecond each.
        They are moved, not shared: a request that began before the reload may still verify one by ``previous``.
        """
        if previous is self or not isinstance(previous, Tokens):
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

    def _by_provider(self) -> dict[str, Verifier]:
        """The names of verifiers are unique, and every principal has that of its own."""
        return {each.rules.provider: each for each in self._verifiers}

    def providers(self) -> frozenset[str]:
        return frozenset(self._by_provider())

    def challenge(self, providers: Providers) -> bytes:
        return BEARER

    def sent(self, request: Request) -> list[bytes]:
        return self.with_scheme(b"bearer", request)

    def remembered(self, sent: Sequence[bytes], now: float) -> Principal | None:
        if len(sent) == 1:
            # Looked up by the hash of all of the token, which Python keeps secret: no prefix can be found by timing
            known = self._seen.get(sent[0])
            if known is not None:
                principal, key = known
                if principal.begins <= now < principal.expires and not key.retired:
                    self._seen.move_to_end(sent[0])
                    return principal
        return None

    def verify(
        self, sent: Sequence[bytes], now: float, providers: Providers = None, caller: bytes = b""
    ) -> Principal | Deferred[Principal] | None:
        """Waits only for the fetch of a key set."""
        raw = token_in(sent)
        if raw is None:
            return None
        as_usual = b"Bearer " + raw
        if as_usual != sent[0]:
            # any spelling of the scheme is the same token: one caller must not fill the cache with spellings
            known = self.remembered([as_usual], now)
            if known is not None and (providers is None or known.provider in providers):
                return known
        token = self._read(raw, as_usual)
        if providers is not None and token.verifier.rules.provider not in providers:
            raise WRONG_PROVIDER()
        self._forget(as_usual)
        key = _verifying_key(token)
        if key is not None:
            return self._accept(token, key, now)
        source = token.verifier.keys
        waiting = source.wanted() if isinstance(source, KeySet) else None
        if waiting is None:
            raise _no_key(token)
        return waiting.addCallback(self._authenticate_again, token, now)

    def could_take(self, raw: bytes) -> bool:
        """Whether a token is a JWT of an issuer that one of the verifiers has, or of any if one has none."""
        segments = raw.split(b".") if len(raw) <= self._largest else []
        if len(segments) != 3:
            return False
        try:
            issuer = parse_object(decoded(segments[1])).get("iss")
        except (ValueError, TypeError):
            return False
        return any(verifier.rules.issuer in (None, issuer) for verifier in self._verifiers)

    def issuers(self) -> frozenset[str | None]:
        """By which ``could_take`` decides."""
        return frozenset([verifier.rules.issuer for verifier in self._verifiers])

    def _authenticate_again(self, _: None, token: Token, now: float) -> Principal:
        key = _verifying_key(token)
        if key is None:
            raise _no_key(token)
        return self._accept(token, key, now)

    def _read(self, raw: bytes, as_usual: bytes) -> Token:
        """Take a token apart and find its verifier; raises ``Unauthorized`` if that is not possible."""
        if len(raw) > self._largest:
            raise too_large(self._largest)
        segments = raw.split(b".")
        if len(segments) != 3:
            raise MALFORMED()
        try:
            head = segments[0]
            header = self._headers.get(head) or self._header(parse_object(decoded(head)))
            payload = decoded(segments[1])
            claims = parse_object(payload)
            signature = decoded(segments[2])
        except RepeatedName:
            raise REPEATED() from None
        except (ValueError, TypeError):
            raise MALFORMED() from None
        verifier = _meant(self._by_algorithm[header.algorithm], claims.get("iss"), header.kid)
        if verifier.typ and header.typ not in verifier.typ:
            raise WRONG_TYPE()
        return Token(as_usual, head, header, raw[: raw.rfind(b".")], signature, payload, claims, verifier)

    def _header(self, members: dict[str, Any]) -> Header:
        algorithm = members.get("alg", "")
        if self._by_algorithm.get(algorithm) is None:
            raise ALGORITHM()
        if "crit" in members or members.get("b64", True) is not True:
            raise CRITICAL()
        kid, typ = members.get("kid"), members.get("typ", "")
        if not isinstance(typ, str) or not (kid is None or (isinstance(kid, str) and len(kid) <= MAX_KEY_ID)):
            raise MALFORMED()
        return Header(algorithm, kid, typ.lower().removeprefix("application/"))

    def _accept(self, token: Token, key: Key, now: float) -> Principal:
        principal = token.verifier.rules.principal(token.claims, now)
        principal.by_token = True
        principal.document = token.payload
        if len(self._headers) >= CACHED_HEADERS:
            self._headers.clear()
        self._headers[token.head] = token.header
        as_usual = token.as_usual
        self._forget(as_usual)
        self._seen[as_usual] = principal, key
        self._seen_bytes += len(as_usual)
        while len(self._seen) > CACHED_TOKENS or self._seen_bytes > CACHED_BYTES:
            self._seen_bytes -= len(self._seen.popitem(last=False)[0])
        return principal

    def _forget(self, as_usual: bytes) -> None:
        if self._seen.pop(as_usual, None) is not None:
            self._seen_bytes -= len(as_usual)


def decoded(part: bytes) -> bytes:
    """The bytes in base64url without padding, which can be written in one way alone. Raises ``ValueError``."""
    missing = -len(part) % 4
    if missing and (missing == 3 or _LAST[missing].find(part[-1:]) < 0):
        raise ValueError
    return a2b_base64(part.translate(_STANDARD) + b"=="[:missing], strict_mode=True)


def token_in(sent: Sequence[bytes]) -> bytes | None:
    """The token among these values of ``Authorization``; ``None`` without one. Raises ``Unauthorized`` for several."""
    if len(sent) > 1:
        raise SEVERAL()
    return after_scheme(sent[0], b"bearer") if sent else None


def too_large(largest: int) -> Unauthorized:
    """The 401 for a token of more than ``largest`` bytes."""
    size = f"{largest >> 10} KiB" if largest % 1024 == 0 else f"{largest} bytes"
    return Refusal("too_large", f"the token is larger than {size}, which is auth.max_token_size")()


def _meant(fitting: list[Verifier], issuer: object, kid: str | None) -> Verifier:
    """The verifier for a token with this ``iss`` and ``kid``. Raises ``Unauthorized`` if there is none."""
    fitting = [verifier for verifier in fitting if verifier.rules.issuer in (None, issuer)]
    if not fitting:
        raise WRONG_ISSUER()
    if len(fitting) > 1:
        fitting = [verifier for verifier in fitting if kid in verifier.key_ids]
        if not fitting:
            raise UNKNOWN_KEY()
    return fitting[0]


def _verifying_key(token: Token) -> Key | None:
    """The key that verifies ``token``; ``None`` if that may be one that we lack. Raises ``Unauthorized`` if not.

    Tried are the keys with the token's ``kid``, else those without one. A token need not have a ``kid`` (RFC 7515
    §4.1.4).
    """
    source = token.verifier.keys
    keys = source if isinstance(source, Keys) else source.keys
    if keys is None:
        return None
    named = keys.named.get(token.kid, ()) if token.kid is not None else ()
    able = keys.able(token.algorithm) if token.kid is None else named or keys.nameless
    for key in able:
        if token.algorithm in key.prepared and key.verifies(token.algorithm, token.signed, token.signature):
            return key
    if named:
        raise SIGNATURE()
    return None


def _no_key(token: Token) -> Exception:
    source = token.verifier.keys
    if isinstance(source, KeySet):
        unavailable: AuthUnavailable | None = source.unavailable()
        if unavailable is not None or source.keys is None:
            return unavailable or AuthUnavailable()
        source = source.keys
    tried = source.able(token.algorithm) if token.kid is None else source.nameless
    return SIGNATURE() if tried else UNKNOWN_KEY()
