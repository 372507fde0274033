"""The clients of the token endpoint, and their authentication.

A secret is checked in this order: remembered secrets, which cost a digest; SHA-256 hashes, which cost as little; then
scrypt, in a thread with a queue. Only a correct secret ends the checks before scrypt, so that neither the answer nor
its time reveals whether the client exists.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar

from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.errors import InvalidScopeError
from twisted.internet.defer import Deferred

from apigw.config.errors import ConfigError, Problem, problem_at
from apigw.config.model import Origin, Path
from apigw.policy.auth.hashing import UNKNOWN
from apigw.policy.auth.names import check_role, check_scope
from apigw.policy.auth.secrets import SecretHash, decoys, verify
from apigw.policy.oauth.model import OAuth, OAuthClient
from apigw.policy.oauth.token_request import Credentials, check_client_id

T = TypeVar("T")


class Run(Protocol):
    """Run ``work`` in a thread, for the client of that id, which begins with ``UNKNOWN`` if there is none. Raises
    ``GatewayError`` if the queue is full.

    ``SecretThreads.run`` is one.
    """

    def __call__(self, work: Callable[[], bool], id: str, /) -> Deferred[bool]: ...


class Remembered:
    """A bounded number of correct secrets, kept as digests with a random key of this process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._key = os.urandom(32)
        self._digests: list[bytes] = []

    def __contains__(self, secret: str) -> bool:
        return self._digest(secret) in self._digests

    def add(self, secret: str) -> None:
        if secret not in self:
            self._digests = [*self._digests, self._digest(secret)][-self._most :]

    def _digest(self, secret: str) -> bytes:
        return blake2b(secret.encode(), digest_size=32, key=self._key).digest()


class Client(ClientMixin):  # type: ignore[misc]  # authlib has no types
    """A configured client, with the interface that authlib needs. ``remembered`` are its verified scrypt secrets."""

    def __init__(
        self, configured: OAuthClient, hashes: Sequence[SecretHash], remembered: Remembered | None = None
    ) -> None:
        self.configured = configured
        self.id = configured.id
        self.roles = configured.roles
        self.scopes = configured.scopes
        self.quick = tuple(each for each in hashes if each.cost is None)
        self.slow = tuple(each for each in hashes if each.cost is not None)
        self.remembered = Remembered(len(self.slow)) if remembered is None else remembered

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return True

    def check_grant_type(self, grant_type: str) -> bool:
        return True

    def granted(self, asked: str | None, held: tuple[str, ...]) -> tuple[str, ...]:
        """The requested scopes out of ``held``, or all of them (RFC 6749 §3.3). Raises ``InvalidScopeError``."""
        allowed = tuple(scope for scope in self.scopes if scope in held)
        if not asked:
            return allowed
        wanted = asked.split(" ")
        if not set(wanted) <= set(allowed):
            raise InvalidScopeError("a scope was asked for that this client does not have")
        return tuple(scope for scope in allowed if scope in wanted)


class Clients:
    """The clients of one configuration. Raises ``ConfigError`` with every problem.

    Remembered secrets are taken over from ``previous`` for clients with an unchanged configuration.
    """

    def __init__(
        self, oauth: OAuth, origins: Mapping[Path, Origin] | None = None, previous: Clients | None = None
    ) -> None:
        before: dict[str, Client] = {} if previous is None else previous._clients
        self._clients: dict[str, Client] = _clients(oauth, origins or {}, before)
        self._nobody = Client(OAuthClient("", ()), ())
        self._quick_decoys = decoys(client.quick for client in self._clients.values())
        self._slow_decoys = decoys(client.slow for client in self._clients.values())

    def meant(self, readings: Sequence[Credentials]) -> tuple[str, tuple[str, ...]]:
        """The client id, and the possible secrets, from credentials that can be decoded in several ways."""
        id = next((each.id for each in readings if each.id in self._clients), readings[0].id)
        return id, tuple(dict.fromkeys(each.secret for each in readings if each.id == id))

    async def prove(self, id: str, secrets: Sequence[str], run: Run) -> Client | None:
        """The client of that id, if one of ``secrets`` is correct. Raises what ``run`` raises."""
        client = self._clients.get(id, self._nobody)
        if any(secret in client.remembered for secret in secrets):
            return client
        if any(verify(secret, client.quick, self._quick_decoys) for secret in secrets):
            return client
        if not self._slow_decoys:
            return None

        def right() -> bool:
            # An earlier request of the same client may have verified the secret meanwhile
            if any(secret in client.remembered for secret in secrets):
                return True
            for secret in secrets:
                if verify(secret, client.slow, self._slow_decoys):
                    client.remembered.add(secret)
                    return True
            return False

        return client if await run(right, id if id in self._clients else UNKNOWN + id) else None


def _clients(oauth: OAuth, origins: Mapping[Path, Origin], before: Mapping[str, Client]) -> dict[str, Client]:
    """The clients by id. Raises ``ConfigError`` with every problem."""
    clients: dict[str, Client] = {}
    problems: list[Problem] = []

    def check(judge: Callable[[str], T], value: str, index: int, *path: str | int) -> T | None:
        try:
            return judge(value)
        except ValueError as error:
            shown = "" if path[0] == "secret_hash" else f"{value!r} "
            problems.append(problem_at(origins, ("auth", "oauth", "clients", index, *path), f"{shown}{error}"))
            return None

    def differs(id: str) -> None:
        if id in clients:
            raise ValueError("is given twice")

    for index, client in enumerate(oauth.clients):
        check(check_client_id, client.id, index, "id")
        check(differs, client.id, index, "id")
        for at, role in enumerate(client.roles):
            check(check_role, role, index, "roles", at)
        for at, scope in enumerate(client.scopes):
            check(check_scope, scope, index, "scopes", at)
        parsed = [
            check(SecretHash.parse, stored, index, "secret_hash", at) for at, stored in enumerate(client.secret_hash)
        ]
        hashes = [each for each in parsed if each is not None]
        old = before.get(client.id)
        kept = old.remembered if old is not None and old.configured == client else None
        clients[client.id] = Client(client, hashes, kept)
    if problems:
        raise ConfigError(problems)
    return clients
