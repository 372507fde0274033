"""Asks an authorization server about tokens (RFC 7662)."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote_plus, urlencode

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from apigw.contract.places import Places
from apigw.errors import AuthUnavailable
from apigw.policy.auth.introspection.model import IntrospectionProvider
from apigw.policy.auth.strict_json import parse_object
from apigw.wire.errors import ConnectFailed
from apigw.wire.fetch import Answered, FetchFailed

MOST_ANSWER = 16 * 1024
"""Bytes of an answer. Those of known servers have under 2 KiB."""
AT_A_TIME = 256
"""Questions that are under way, in one worker: as many as the connections to the server."""
EACH = 64
"""How many of them may be for one client address (IPv6: a /64)."""

TOLD_EVERY = 10.0
"""Seconds between two lines of the log that say that the server fails: clients choose what it is asked."""

Ask = Callable[[str, Headers, bytes], Awaitable[Answered]]
"""POSTs a body to a URL: raises ``FetchFailed``, and what the agent does."""
Counted = Callable[[str], None]
"""Counts a question by its result: active, inactive, failed."""


@frozen
class Said:
    """What the server says of a token that is active: ``document`` is its answer, ``members`` what is in it."""

    document: bytes
    members: dict[str, Any]


class Server:
    """``ask`` makes the request. Neither the token nor the secret is in an error or a line of the log."""

    log = Logger()

    def __init__(self, provider: IntrospectionProvider, ask: Ask, clock: IReactorTime, counted: Counted) -> None:
        self._name = provider.name
        self._url = provider.url
        self._timeout = provider.timeout
        secret = provider.client_secret
        self._credentials = _basic(provider.client_id, b"" if secret is None else secret.value)
        self._ask = ask
        self._clock = clock
        self._counted = counted
        self._places = Places(AT_A_TIME, EACH)
        self._told = False
        """Whether the last line of the log says that it fails."""
        self._next_told = -math.inf

    def about(self, token: bytes, caller: str) -> Deferred[Said | None]:
        """Fires with what the server says, ``None`` if the token is not active.

        Raises, or fires with, ``AuthUnavailable`` if it says nothing that can be understood. May be cancelled.
        """
        if not self._places.take(caller):
            self._counted("failed")
            raise unavailable()
        headers = Headers({"accept": ["application/json"], "authorization": [self._credentials]})
        headers.addRawHeader("content-type", "application/x-www-form-urlencoded")
        form = urlencode({"token": token, "token_type_hint": "access_token"}).encode("ascii")
        asking: Deferred[Any] = Deferred.fromCoroutine(self._answer(headers, form))
        asking.addTimeout(self._timeout, self._clock, self._late)
        return asking.addBoth(self._ended, caller).addCallbacks(self._judged, self._failed)

    async def _answer(self, headers: Headers, form: bytes) -> Answered:
        return await self._ask(self._url, headers, form)

    def _ended(self, result: Any, caller: str) -> Any:
        self._places.give_back(caller)
        return result

    def _judged(self, answered: Answered) -> Said | None:
        if answered.status != 200:
            raise self._unusable(f"answered with {answered.status}")
        try:
            members = parse_object(answered.body)
        except ValueError as error:
            raise self._unusable(f"answered with {error}") from None
        active = members.get("active")
        if not isinstance(active, bool):
            raise self._unusable("answered without `active: true` or `active: false`")
        if self._told:
            self._told = False
            self.log.info("introspection by {name}: answers again", name=self._name)
        self._counted("active" if active else "inactive")
        return Said(answered.body, members) if active else None

    def _failed(self, failure: Failure) -> Failure:
        if failure.check(CancelledError):  # nobody waits for it any more
            return failure
        raise self._unusable(_in_words(failure.value))

    def _late(self, result: object, seconds: float) -> object:
        if isinstance(result, Failure):
            raise FetchFailed(f"has not answered within {seconds:g} s")
        return result

    def _unusable(self, why: str) -> AuthUnavailable:
        self._counted("failed")
        now = self._clock.seconds()
        if not self._told and now >= self._next_told:
            self._told, self._next_told = True, now + TOLD_EVERY
            self.log.warn("introspection by {name}: the server {why}", name=self._name, why=why)
        return unavailable()


def _in_words(error: BaseException | None) -> str:
    """What others say could quote what the server has sent, and that the token."""
    if isinstance(error, FetchFailed):
        return str(error)
    if isinstance(error, ConnectFailed):
        return f"cannot be reached: {error}"
    return f"gave no answer ({type(error).__name__})"


def unavailable() -> AuthUnavailable:
    return AuthUnavailable("The server that knows this token is unavailable.", [(b"retry-after", b"1")])


def _basic(client_id: str, secret: bytes) -> str:
    """HTTP Basic, both form-encoded before (RFC 6749 §2.3.1)."""
    return "Basic " + b64encode(f"{quote_plus(client_id)}:{quote_plus(secret)}".encode("ascii")).decode("ascii")
