# Compiled: see docs/decisions/compiled.md
"""Who is denied now, as requests are compared with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from hashlib import sha256
from typing import final

from apigw import errors
from apigw.contract.exchange import Exchange, Outcome, Stage
from apigw.contract.principal import key_of
from apigw.contract.ranges import Ranges
from apigw.errors import GatewayError
from apigw.policy.auth.digest import token_digest

_CHALLENGE = b'Bearer realm="apigw", error="invalid_token", error_description="the token was denied"'


@final
class Watch:
    """``denied`` is called with the kind for each request that is refused."""

    def __init__(self, denied: Callable[[str], object]) -> None:
        self._denied = denied
        self.addresses: Ranges | None = None
        """None if none is denied."""
        self.callers = False
        """Whether a subject, a key or a token is."""
        self._ids: frozenset[str] = frozenset()
        self._subjects: frozenset[bytes] = frozenset()
        self._keys: frozenset[str] = frozenset()
        self._tokens: frozenset[str] = frozenset()

    def use(
        self,
        addresses: Collection[str],
        ids: Collection[str],
        subjects: Collection[bytes],
        keys: Collection[str],
        tokens: Collection[str],
    ) -> None:
        """From now on these are denied: networks, ids of any provider, ``Principal.key``, and hexadecimal digests."""
        self.addresses = Ranges(addresses) if addresses else None
        self._ids = frozenset(ids)
        self._subjects = frozenset(subjects)
        self._keys = frozenset(keys)
        self._tokens = frozenset(tokens)
        self.callers = bool(self._ids or self._subjects or self._keys or self._tokens)

    def check_address(self, address: bytes) -> None:
        """Raises ``Denied``."""
        addresses = self.addresses
        if addresses is not None and addresses.holds(address):
            raise self._refusal("address")

    def denies(self, provider: str, id: str) -> bool:
        """Whether a caller is denied that asks for something else than a route: as ``check_caller``, and counted so."""
        if id not in self._ids and key_of(provider, id) not in self._subjects:
            return False
        self._denied("subject")
        return True

    def check_caller(self, exchange: Exchange, key_fields: Sequence[bytes]) -> None:
        """``key_fields`` are the headers of API keys. Raises ``Denied`` or ``Unauthorized``."""
        principal = exchange.principal
        if principal is not None and (principal.id in self._ids or principal.key in self._subjects):
            raise self._refusal("subject")
        if self._keys:
            for name, value in exchange.request.headers:
                if name in key_fields and sha256(value).hexdigest() in self._keys:
                    raise self._refusal("key")
        if self._tokens:
            for name, value in exchange.request.headers:
                if name == b"authorization" and token_digest(value.partition(b" ")[2].strip(b" ")) in self._tokens:
                    raise self._refusal("token")

    def _refusal(self, kind: str) -> GatewayError:
        self._denied(kind)
        if kind == "token":
            return errors.Unauthorized("The token was denied.", [(b"www-authenticate", _CHALLENGE)], "denied")
        return errors.Denied("Requests of this caller are refused at present.")


@final
class Guard(Stage):
    """Runs before each stage of every exchange while anybody is denied. ``key_fields``: see ``Watch.check_caller``."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.key_fields: tuple[bytes, ...] = ()
        self._checked: Exchange | None = None
        """The one whose caller was looked at last: it comes again before its next stage."""

    def run(self, exchange: Exchange) -> Outcome:
        watch = self._watch
        if exchange.at == 0 and watch.addresses is not None:
            watch.check_address(exchange.peers.client_address(exchange.request))
        if watch.callers and exchange.principal is not None and exchange is not self._checked:
            watch.check_caller(exchange, self.key_fields)
            self._checked = exchange
        return None

    def forget(self) -> None:
        """Others are denied now."""
        self._checked = None
