"""The token endpoint: client credentials (RFC 6749 §4.4) and refresh tokens (§6), on authlib's ``AuthorizationServer``.

A request is parsed strictly and counted against the limits. Only then is its secret hashed, in a thread. authlib gets
authenticated clients only: it selects the grant, checks grant and scope, and makes the error responses.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from json import dumps
from typing import Any, Protocol

from attrs import field, frozen
from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.rfc6749 import AuthorizationServer, OAuth2Request
from authlib.oauth2.rfc6749.errors import InvalidGrantError, InvalidRequestError, UnauthorizedClientError
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant, RefreshTokenGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from apigw.config.model import Origin, Path
from apigw.errors import GatewayError, Headers
from apigw.policy.oauth import refresh
from apigw.policy.oauth.clients import Client, Clients, Run
from apigw.policy.oauth.model import OAuth
from apigw.policy.oauth.refresh import Family, FamilyStore
from apigw.policy.oauth.signing import Signer
from apigw.policy.oauth.token_request import credentials, invalid_client, read_form

ADDRESS_FACTOR = 6
BASIC = b'Basic realm="apigw", charset="UTF-8"'


class Allow(Protocol):
    """Count one for each key in an exact window, and return ``None``. Where one has reached its limit, count none, and
    return the seconds to wait."""

    def __call__(self, counts: Sequence[tuple[bytes, int]], window: float, /) -> float | None: ...


@frozen
class TokenResponse:
    """An answer of the token endpoint. ``client`` is the authenticated client, ``error`` the code in the body."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)
    client: str | None = None
    error: str | None = None


class TokenEndpoint:
    """``POST /oauth/token`` for the clients of one configuration. Made once for each snapshot.

    ``families`` (of refresh tokens, if the configuration has them), ``allow`` and ``run`` outlive it. Remembered
    secrets are taken over from ``previous``. ``denies`` says whether a client gets no tokens at present. Raises
    ``ConfigError`` for clients that cannot be used.
    """

    log = Logger()

    def __init__(
        self,
        oauth: OAuth,
        signer: Signer,
        allow: Allow,
        run: Run,
        families: FamilyStore | None = None,
        origins: Mapping[Path, Origin] | None = None,
        previous: TokenEndpoint | None = None,
        denies: Callable[[str], bool] = lambda client: False,
    ) -> None:
        self._denies = denies
        self._oauth = oauth
        self._allow = allow
        self._run = run
        self._families = families if oauth.refresh_tokens else None
        self._clients: Clients = Clients(oauth, origins, None if previous is None else previous._clients)
        self._server = _Server(oauth, signer)
        self._server.register_grant(_ClientCredentials)
        if self._families is not None:
            self._server.register_grant(_Refresh)

    def respond(
        self, headers: Sequence[tuple[bytes, bytes]], body: bytes, addresses: Sequence[str], now: float
    ) -> Deferred[TokenResponse]:
        """Answer one request. ``now`` is in Unix seconds.

        ``addresses`` are the keys by which its caller is counted, from narrow to wide: the address, and for IPv6 also
        its network. Fires with an answer, unless it is cancelled or there is a bug.
        """
        return Deferred.fromCoroutine(self._respond(headers, body, addresses, now))

    async def _respond(
        self, headers: Sequence[tuple[bytes, bytes]], body: bytes, addresses: Sequence[str], now: float
    ) -> TokenResponse:
        verified: str | None = None
        try:
            form = read_form(headers, body)
            request = _Request(form, now)
            self._server.get_token_grant(request)
            authorization = [value for name, value in headers if name.lower() == b"authorization"]
            id, presented = self._clients.meant(credentials(authorization, form))
            limit = self._oauth.rate_limit.limit
            of_addresses = [
                (_key(b"address", address), limit * ADDRESS_FACTOR**width) for width, address in enumerate(addresses, 1)
            ]
            self._count((_key(b"pair", id, addresses[0]), limit), *of_addresses)
            client = await self._clients.prove(id, presented, self._run)
            if client is None:
                raise invalid_client()
            verified = client.id
            if self._denies(client.id):
                raise UnauthorizedClientError("tokens are denied to this client at present")
            self._count((_key(b"client", id), limit))
            request.verified = client
            return await self._grant(request)
        except OAuth2Error as error:
            return self._refuse(error, verified)
        except GatewayError as error:
            return _answer(error.status, {"error": "temporarily_unavailable"}, error.headers, verified)

    async def _grant(self, request: _Request) -> TokenResponse:
        if self._families is None:
            status, body = self._server.create_token_response(request)
            return _answer(status, body, (), request.verified.id)
        presented = refresh.take_apart(request.form.get("refresh_token", ""))
        if request.payload.grant_type == _Refresh.GRANT_TYPE and presented is not None:
            request.family = await self._current(presented, request)
        status, body = self._server.create_token_response(request)
        if status == 200:
            refresh_token = await self._rotate(request, presented, body)
            if refresh_token is not None:
                body["refresh_token"] = refresh_token
        return _answer(status, body, (), request.verified.id)

    async def _current(self, presented: tuple[str, str], request: _Request) -> Family | None:
        """The family whose current token is the presented one. A token that was used before ends its family."""
        assert self._families is not None
        id, digest = presented
        family = await self._families.get(id, request.now)
        if family is None or family.client != request.verified.id:
            return None
        if family.digest != digest:
            await self._end(id, family)
            return None
        return family

    async def _rotate(self, request: _Request, presented: tuple[str, str] | None, body: dict[str, Any]) -> str | None:
        """The next refresh token. ``None`` if a new one cannot be stored: the client still gets its access token."""
        assert self._families is not None
        if request.family is None or presented is None:
            id, token, digest = refresh.new_token()
            scopes = tuple(body.get("scope", "").split())
            family = Family(request.verified.id, scopes, digest, request.now + refresh.LIFETIME)
            try:
                await self._families.put(id, family, request.now)
            except GatewayError:
                return None
            return token
        id, token, digest = refresh.new_token(presented[0])
        family = Family(request.family.client, request.family.scopes, digest, request.family.expires)
        if not await self._families.replace(id, presented[1], family, request.now):
            await self._end(id, request.family)
            raise InvalidGrantError("the refresh token is not valid")
        return token

    async def _end(self, id: str, family: Family) -> None:
        assert self._families is not None
        self.log.warn(
            "OAuth client {client}: a refresh token was used twice; its family has ended.", client=family.client
        )
        await self._families.remove(id)

    def _count(self, *counts: tuple[bytes, int]) -> None:
        wait = self._allow(counts, self._oauth.rate_limit.window)
        if wait is not None:
            raise _TooMany(wait)

    def _refuse(self, error: OAuth2Error, client: str | None) -> TokenResponse:
        status, body, _ = error()
        headers: Headers = []
        if status == 401:
            headers.append((b"www-authenticate", BASIC))
        if isinstance(error, _TooMany):
            headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.wait))))
        return _answer(status, body, headers, client)


def _key(*parts: bytes | str) -> bytes:
    text = b"\0".join(part if isinstance(part, bytes) else part.encode() for part in parts)
    return b"oauth:" + blake2b(text, digest_size=16).digest()


class _TooMany(OAuth2Error):  # type: ignore[misc]  # authlib has no types
    error = "temporarily_unavailable"
    description = "too many requests"
    status_code = 429

    def __init__(self, wait: float) -> None:
        super().__init__()
        self.wait = wait


class _Request(OAuth2Request):  # type: ignore[misc]  # authlib has no types
    """A token request. ``verified`` and ``family`` are set once they are authenticated."""

    verified: Client
    family: Family | None = None

    def __init__(self, form: dict[str, str], now: float) -> None:
        # authlib refuses http:// here; TLS is a matter of the listener
        super().__init__("POST", "https://gateway.invalid/oauth/token")
        self.payload = BasicOAuth2Payload(form)
        self.now = now

    @property
    def form(self) -> dict[str, str]:
        return self.payload.data


class _Server(AuthorizationServer):  # type: ignore[misc]  # authlib has no types
    def __init__(self, oauth: OAuth, signer: Signer) -> None:
        super().__init__()
        self.register_client_auth_method("verified", lambda _, request: request.verified)
        self._issuer = oauth.issuer
        self._audience = oauth.audience[0] if len(oauth.audience) == 1 else list(oauth.audience) or oauth.issuer
        self._lifetime = int(oauth.token_lifetime)
        self._signer = signer

    def create_oauth2_request(self, request: _Request) -> _Request:
        return request

    def handle_response(self, status: int, body: dict[str, Any], headers: object) -> tuple[int, dict[str, Any]]:
        return status, body

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        pass

    def query_client(self, client_id: str) -> None:
        pass

    def issue(self, request: _Request, scopes: tuple[str, ...]) -> dict[str, Any]:
        """The body with an access token (RFC 9068 §2.2)."""
        client, now = request.verified, int(request.now)
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": client.id,
            "client_id": client.id,
            "roles": list(client.roles),
            "scope": " ".join(scopes),
            "iat": now,
            "exp": now + self._lifetime,
            "jti": secrets.token_urlsafe(16),
        }
        body = {"access_token": self._signer.sign(claims), "token_type": "Bearer", "expires_in": self._lifetime}
        if scopes:
            body["scope"] = claims["scope"]
        return body


class _ClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]  # authlib has no types
    TOKEN_ENDPOINT_AUTH_METHODS = ("verified",)

    def validate_requested_scope(self) -> None:
        client = self.request.verified
        self.scopes = client.granted(self.request.payload.scope, client.scopes)

    def create_token_response(self) -> tuple[int, dict[str, Any], object]:
        # not the inherited one: that writes the token to the debug log
        return 200, self.server.issue(self.request, self.scopes), ()


class _Refresh(RefreshTokenGrant):  # type: ignore[misc]  # authlib has no types
    TOKEN_ENDPOINT_AUTH_METHODS = ("verified",)

    def _validate_request_token(self, client: Client) -> Family:
        if "refresh_token" not in self.request.form:
            raise InvalidRequestError("the refresh_token is missing")
        if self.request.family is None:
            raise InvalidGrantError("the refresh token is not valid")
        return self.request.family

    def _validate_token_scope(self, family: Family) -> None:
        self.scopes = self.request.verified.granted(self.request.payload.scope, family.scopes)

    def create_token_response(self) -> tuple[int, dict[str, Any], object]:
        return 200, self.server.issue(self.request, self.scopes), ()


def metadata(oauth: OAuth) -> dict[str, Any]:
    """The document for ``/.well-known/oauth-authorization-server`` (RFC 8414 §2)."""
    base = oauth.issuer.rstrip("/")
    document: dict[str, Any] = {
        "issuer": oauth.issuer,
        "token_endpoint": f"{base}/oauth/token",
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "grant_types_supported": ["client_credentials", *(["refresh_token"] if oauth.refresh_tokens else [])],
        "response_types_supported": [],
    }
    if oauth.signing.algorithm == "RS256":
        document["jwks_uri"] = f"{base}/.well-known/jwks.json"
    return document


def _answer(
    status: int, body: dict[str, Any], headers: Sequence[tuple[bytes, bytes]], client: str | None
) -> TokenResponse:
    content = dumps(body).encode()
    fixed = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        (b"cache-control", b"no-store"),
        (b"pragma", b"no-cache"),
    ]
    return TokenResponse(status, [*fixed, *headers], content, client, body.get("error"))
