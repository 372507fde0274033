# Compiled: see docs/decisions/compiled.md
"""Authentication by API keys, each in a header of its own."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256

from apigw.contract.principal import Principal
from apigw.policy.auth.api_keys.records import Record, parse
from apigw.policy.auth.api_keys.search import DIGITS, KeyFile
from apigw.policy.auth.jwt.claims import is_name
from apigw.policy.auth.method import Method, Providers
from apigw.policy.auth.refusals import WRONG_PROVIDER, Refusal

REMEMBERED = 16_384
"""Keys of which the caller is remembered: some 14 MiB."""
GRANTED = 1024

SEVERAL = Refusal("several", "the header of the API key occurs more than once")
MALFORMED = Refusal("malformed", "the API key is not well-formed")
UNKNOWN = Refusal("unknown_key", "the API key is not known")
EXPIRED = Refusal("expired", "the API key has expired")

_WELL_FORMED = re.compile(rb"[!-~]{16,256}").fullmatch


class Granted:
    """What a key gives. Thousands of keys often give the same, and to parse it takes longer than to find the key."""

    def __init__(self, roles: tuple[str, ...], scopes: frozenset[str], expires: float) -> None:
        self.roles = roles
        self.scopes = scopes
        self.expires = expires


class Provider:
    """The keys of one file. ``name`` is that of the configuration."""

    def __init__(self, name: str, file: KeyFile) -> None:
        self.name = name
        self.file = file


class Keys(Method):
    """All providers whose keys are sent in one header."""

    def __init__(self, header: str, providers: Sequence[Provider]) -> None:
        super().__init__(header.lower().encode("ascii"))
        self._of = tuple(providers)
        self._challenge = b'Key realm="apigw", header="%s"' % header.encode("ascii")
        self._seen: OrderedDict[bytes, Principal] = OrderedDict()
        self._granted: dict[bytes, Granted] = {}
        """By the ends of lines."""

    def providers(self) -> frozenset[str]:
        return frozenset([each.name for each in self._of])

    def challenge(self, providers: Providers) -> bytes:
        return self._challenge

    def remembered(self, sent: Sequence[bytes], now: float) -> Principal | None:
        if len(sent) == 1:
            principal = self._seen.get(sent[0])
            if principal is not None and now < principal.expires:
                self._seen.move_to_end(sent[0])
                return principal
        return None

    def verify(
        self, sent: Sequence[bytes], now: float, providers: Providers = None, caller: bytes = b""
    ) -> Principal | None:
        if not sent:
            return None
        if len(sent) > 1:
            raise SEVERAL.by(self._challenge)
        key = sent[0]
        if _WELL_FORMED(key) is None:
            raise MALFORMED.by(self._challenge)
        digest = sha256(key).hexdigest().encode("ascii")
        for provider in self._of:
            line = provider.file.find(digest)
            if line is None:
                continue
            if providers is not None and provider.name not in providers:
                raise WRONG_PROVIDER.by(self._challenge)
            return self._accept(key, provider, line, now)
        raise UNKNOWN.by(self._challenge)

    def _accept(self, key: bytes, provider: Provider, line: bytes, now: float) -> Principal:
        id, _, end = line[DIGITS + 1 :].partition(b"\t")
        granted = self._granted.get(end)
        try:
            if granted is None:
                granted = self._grant(line, end)
            name = id.decode()
        except ValueError:  # the file was changed behind the check that a reload makes
            raise UNKNOWN.by(self._challenge) from None
        if not is_name(name):
            raise UNKNOWN.by(self._challenge)
        if now >= granted.expires:
            raise EXPIRED.by(self._challenge)
        principal = Principal(provider.name, name, granted.roles, granted.scopes, expires=granted.expires)
        self._seen[key] = principal
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return principal

    def _grant(self, line: bytes, end: bytes) -> Granted:
        """What stands behind the id. Raises ``ValueError``."""
        record: Record = parse(line.decode())
        expires = math.inf if record.expires is None else record.expires
        granted = Granted(record.roles, frozenset(record.scopes), expires)
        if len(self._granted) < GRANTED:
            self._granted[end] = granted
        return granted

    def take_over(self, previous: Method) -> None:
        """What was remembered goes on to hold where no file has changed."""
        if previous is not self and isinstance(previous, Keys) and previous._stamps() == self._stamps():
            self._seen, previous._seen = previous._seen, self._seen

    def _stamps(self) -> list[tuple[str, tuple[int, int, int, int]]]:
        return [(each.name, each.file.stamp) for each in self._of]
