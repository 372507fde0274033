"""What may stand in a configuration: Cerberus schemas, as data.

Besides Cerberus' own rules there are three of ours: ``duration`` and ``size`` hold the least and the most that are
allowed, ``form`` names an entry of ``Rules.forms``. ``meta`` is for people and for what comes after validation: ``doc``
explains the key, ``model`` is the class that its map becomes (and where its defaults are), ``file`` says what the named
file must hold (an entry of ``Rules.contents``), ``default`` says in words what holds where the key is left out.
"""

from __future__ import annotations

from typing import Any

from apigw.config import model

Rule = dict[str, Any]

_DAY, _MONTH = "24h", "744h"


def _duration(doc: str, least: str, most: str, **more: Any) -> Rule:
    return _with(doc, more, duration=[least, most])


def _size(doc: str, least: str, most: str, **more: Any) -> Rule:
    return _with(doc, more, size=[least, most])


def _whole(doc: str, least: int, most: int, **more: Any) -> Rule:
    return _with(doc, more, type="integer", min=least, max=most)


def _switch(doc: str, **more: Any) -> Rule:
    return _with(doc, more, type="boolean")


def _text(doc: str, form: str, **more: Any) -> Rule:
    return _with(doc, more, type="string", form=form)


def _choice(doc: str, *allowed: str, **more: Any) -> Rule:
    return _with(doc, more, type="string", allowed=list(allowed))


def _file(doc: str, holds: str, **more: Any) -> Rule:
    rule = _with(doc, more, type="string", form="file")
    rule["meta"]["file"] = holds
    return rule


def _optional_file(doc: str, holds: str) -> Rule:
    return _file(doc, holds, nullable=True)


def _list(doc: str, item: Rule, **more: Any) -> Rule:
    return _with(doc, more, type="list", schema=item)


def _map(doc: str, of: type[Any] | None, schema: Rule, **more: Any) -> Rule:
    rule = _with(doc, more, type="dict", schema=schema)
    rule["meta"]["model"] = of
    return rule


def _with(doc: str, more: Rule, **rules: Any) -> Rule:
    meta = {"doc": doc, **({"default": more.pop("default")} if "default" in more else {})}
    return {**rules, **more, "meta": meta}


def _item(form: str) -> Rule:
    return {"type": "string", "form": form}


CERTIFICATE: Rule = {
    "cert_file": _file("PEM file: the certificate, then its intermediate ones.", "certificate", required=True),
    "key_file": _file("PEM file: the certificate's private key, without a passphrase.", "private key", required=True),
}

SERVER_TLS: Rule = {
    "certificates": _list(
        "Chosen by the name that the client asks for; the first is for clients that ask for none.",
        _map("", model.Certificate, CERTIFICATE),
        required=True,
        minlength=1,
    ),
    "min_version": _choice("The oldest TLS version that is spoken, in quotes.", "1.2", "1.3"),
    "client_ca_file": _optional_file(
        "PEM file: clients must show a certificate that one of these signed.", "certificate"
    ),
}

LISTEN: Rule = {
    "endpoint": _text(
        "A Twisted endpoint string: `tcp:`, `tcp6:`, `ssl:`, `unix:` or `systemd:`.", "endpoint", required=True
    ),
    "tls": _map("Speak TLS here, with HTTP/2 by ALPN.", model.ServerTLS, SERVER_TLS, nullable=True),
}

ACCESS_LOG: Rule = {
    "file": _text("A file, or `-` for stdout, which is an error when daemonised.", "file"),
    "format": _choice("JSON, or the combined format of Apache and nginx.", "json", "combined"),
}

GATEWAY: Rule = {
    "listen": _list(
        "Where clients connect: endpoint strings, or maps with `endpoint` and `tls`; `null` is left out. "
        "HTTP/1.1 and HTTP/2 on each.",
        {
            "type": ["string", "dict"],
            "form": "endpoint",
            "schema": LISTEN,
            "nullable": True,
            "meta": {"doc": "", "model": model.Listen},
        },
        minlength=1,
    ),
    "admin": _text(
        "Where operators connect: `/metrics`, `/health`, `/ready`, status, JSON. `null` for none.",
        "endpoint",
        nullable=True,
    ),
    "admin_token_file": _optional_file(
        "Holds the token for writes. Without it the admin listener answers reads only.", "admin token"
    ),
    "request_timeout": _duration(
        "Runs only while the gateway waits for the upstream: to its headers, and between two pieces of its body.",
        "1ms",
        _DAY,
    ),
    "client_body_timeout": _duration("For a client that stalls while sending (408) or reading (cut).", "1ms", _DAY),
    "client_header_timeout": _duration("A request's headers must be complete by then.", "1ms", "1h"),
    "client_least_rate": _size(
        "Bytes a second that a body of known length must bring, on average over each 30 s in which the gateway asked "
        "for more; a slower one is 408. `null` for no least rate.",
        "1",
        "1GiB",
        nullable=True,
    ),
    "keepalive_timeout": _duration("How long an idle connection of a client stays open.", "1ms", _DAY),
    "tunnel_idle_timeout": _duration(
        "A WebSocket over which nothing comes from either side for so long ends.", "1s", _MONTH
    ),
    "drain_timeout": _duration(
        "How long exchanges in flight may take to finish after SIGTERM, before they are cut.", "0s", _DAY
    ),
    "drain_delay": _duration("`/ready` says 503 this long before the ports close.", "0s", "1h"),
    "max_header_size": _size("All headers of a request together; more is answered with 431.", "1KiB", "1MiB"),
    "max_header_count": _whole("Headers in a request; more are answered with 431.", 1, 10_000),
    "max_body_size": _size(
        "A request's body; more is answered with 413. `null` for no limit.", "0", "1024GiB", nullable=True
    ),
    "max_buffered": _size(
        "All request bodies that are buffered (`buffer_body` of routes) together; above it, bodies stream.",
        "0",
        "1024GiB",
    ),
    "max_connections": _whole(
        "Open connections of clients. The file limit is raised for it; lowered with a warning where it cannot be.",
        1,
        1_000_000,
    ),
    "trusted_proxies": _list("CIDRs whose `X-Forwarded-For` is believed, walked from the right.", _item("network")),
    "metrics_allow": _list("CIDRs that may read `/metrics` on the public port; others get 404.", _item("network")),
    "access_log": _map("One line for each exchange. `null` for none.", model.AccessLog, ACCESS_LOG, nullable=True),
    "auth_default": _choice(
        "What a route without `auth` demands.",
        "required",
        "optional",
        "none",
        nullable=True,
        default="`required` where there is an `auth` section, else `none`",
    ),
}

REDIS: Rule = {
    "url": _text(
        "`redis://host:port/database`, or `rediss://`, which verifies. Without a password.", "redis url", required=True
    ),
    "password_file": _optional_file("Holds the password. Read anew at every connection attempt.", "text"),
    "ca_file": _optional_file("PEM file: who may have signed the certificate of a `rediss://` server.", "certificate"),
    "sentinels": _list("`host:port` of each sentinel; with `sentinel_name`.", _item("host:port")),
    "sentinel_name": _text("The master's name at the sentinels.", "printable", nullable=True),
    "prefix": _text("Begins every key.", "printable"),
    "timeout": _duration("An answer that takes longer counts as a failure.", "1ms", "1m"),
}

TARGET: Rule = {
    "url": _text(
        "`http://host:port` or `https://host:port`. Names are resolved anew for each connect.", "target", required=True
    ),
    "weight": _whole("Its share of the requests, in proportion to the others'.", 1, 1000),
}

UPSTREAM_TLS: Rule = {
    "ca_file": _optional_file(
        "PEM file: who may have signed the targets' certificates; else the system's.", "certificate"
    ),
    "server_name": _text("The name to ask for and to verify, instead of the target's.", "host", nullable=True),
    "client_cert_file": _optional_file("PEM file: the certificate to show; with `client_key_file`.", "certificate"),
    "client_key_file": _optional_file("PEM file: its private key, without a passphrase.", "private key"),
}

HEALTH_CHECK: Rule = {
    "path": _text("Asked for with GET.", "request path"),
    "interval": _duration("From one check to the next.", "100ms", "1h"),
    "timeout": _duration("A check that takes longer has failed.", "10ms", "5m"),
    "unhealthy_after": _whole("So many failures in a row put a target aside.", 1, 100),
    "healthy_after": _whole("So many successes in a row bring it back.", 1, 100),
}

CIRCUIT_BREAKER: Rule = {
    "error_rate": {
        "type": "number",
        "min": 0.001,
        "max": 1,
        "meta": {"doc": "Opens when this part of the requests has failed: above 0, up to 1."},
    },
    "window": _duration("Counts the outcomes of this time.", "1s", "1h"),
    "min_requests": _whole("Never opens on fewer outcomes.", 1, 1_000_000),
    "open_for": _duration("How long it stays open before it tries again.", "100ms", "1h"),
    "half_open_requests": _whole("So many requests at a time try whether it can close.", 1, 1000),
}

SERVICE: Rule = {
    "targets": _list(
        "Its addresses: URLs, or maps with `url` and `weight`.",
        {"type": ["string", "dict"], "form": "target", "schema": TARGET, "meta": {"doc": "", "model": model.Target}},
        required=True,
        minlength=1,
    ),
    "tls": _map("For `https` targets, which are always verified.", model.UpstreamTLS, UPSTREAM_TLS),
    "connect_timeout": _duration("For a connection, TLS included, and for the wait for a free one.", "1ms", "10m"),
    "timeout": _duration(
        "Instead of `gateway.request_timeout`.", "1ms", _DAY, nullable=True, default="`gateway.request_timeout`"
    ),
    "keepalive_timeout": _duration(
        "How long an idle connection to the service is kept (Node closes at 5 s).", "0s", _DAY
    ),
    "max_connections": _whole("Connections to each target.", 1, 100_000),
    "max_pending": _whole(
        "That many more requests wait for a connection, up to `connect_timeout`; then 503 `overloaded`.", 0, 1_000_000
    ),
    "preserve_host": _switch("Whether the client's `Host` goes to the service, instead of the target's."),
    "critical": _switch("Whether it counts for `/ready`."),
    "health_check": _map(
        "Ask each target how it is. Left out: a TCP connect.", model.HealthCheck, HEALTH_CHECK, nullable=True
    ),
    "circuit_breaker": _map(
        "Stop calling the service while it fails.", model.CircuitBreaker, CIRCUIT_BREAKER, nullable=True
    ),
}

CORS: Rule = {
    "origins": _list("Origins as browsers send them, or `*` alone.", _item("origin"), required=True, minlength=1),
    "credentials": _switch("Whether browsers may send cookies and credentials. Not with `*`."),
    "max_age": _duration("How long browsers may remember a preflight.", "0s", "24h"),
}

ROUTE: Rule = {
    "path": _text(
        "A path pattern: literal segments, `:name` segments, and `*` at the end for the rest.", "pattern", required=True
    ),
    "service": {"type": "string", "required": True, "meta": {"doc": "The service that gets the requests."}},
    "methods": _list(
        "HTTP methods in capitals. HEAD is served where GET is.",
        _item("method"),
        minlength=1,
        nullable=True,
        default="all",
    ),
    "auth": _choice(
        "`required`: 401 without a token. `optional`: only a bad one is 401. `none`: tokens are not looked at.",
        "required",
        "optional",
        "none",
        nullable=True,
        default="`gateway.auth_default`",
    ),
    "roles": _list("The caller needs any of them; 403 otherwise.", _item("role")),
    "scopes": _list("The caller needs all of them; 403 otherwise.", _item("scope")),
    "forward_token": _switch("`false`: the `Authorization` header does not reach the service."),
    "strip_prefix": _text(
        "Whole literal segments that are cut off before the path goes to the service.", "prefix", nullable=True
    ),
    "timeout": _duration("Instead of the service's.", "1ms", _DAY, nullable=True, default="the service's `timeout`"),
    "max_body_size": _size(
        "Instead of the gateway's. `null` for no limit.",
        "0",
        "1024GiB",
        nullable=True,
        default="`gateway.max_body_size`",
    ),
    "buffer_body": _size(
        "A request's body whose `Content-Length` is at most this is read whole before a connection to the service is "
        "taken; a larger one, and one of unknown length, streams after its first piece. `0` streams at once, as gRPC "
        "always does.",
        "0",
        "16MiB",
    ),
    "cors": _map(
        "Which web pages may call it. A preflight is answered before authentication.", model.Cors, CORS, nullable=True
    ),
}

QUOTA: Rule = {
    "limit": _whole("So many requests.", 1, 1_000_000_000, required=True),
    "window": _duration("In any time as long as this.", "1ms", _MONTH, required=True),
}

JWT: Rule = {
    "name": _text(
        "Names the verifier: part of who the caller is, and sent to services as `X-Auth-Provider`.",
        "name",
        required=True,
    ),
    "algorithm": _choice("One algorithm a key.", "RS256", "HS256", required=True),
    "public_key_file": _optional_file("PEM file: the RSA key that verifies RS256.", "public key"),
    "secret": {
        "type": "string",
        "nullable": True,
        "meta": {"doc": "The secret of HS256, at least 32 bytes. Better: `secret_file`."},
    },
    "secret_file": _optional_file("Holds the secret of HS256. One newline at its end does not count.", "secret"),
    "jwks_file": _optional_file("A JSON Web Key Set (RFC 7517).", "text"),
    "jwks_url": _text("Where to fetch a key set, for RS256; refreshed before it expires.", "url", nullable=True),
    "key_id": _text("The `kid` of tokens that this key verifies.", "printable", nullable=True),
    "issuer": _text("The `iss` that tokens must have; checked when given.", "printable", nullable=True),
    "audience": _list("Tokens must be for any of these.", _item("printable")),
    "leeway": _duration("How far clocks may be apart.", "0s", "1h"),
    "user_claim": _text("The claim that names the caller. Dots reach into nested claims.", "claim"),
    "roles_claim": _text("The claim that lists the roles. Dots reach into nested claims.", "claim"),
}

ACCEPTED: Rule = {
    "key_id": _text("The `kid` of the tokens that it signed, or will sign.", "printable", required=True),
    "public_key_file": _optional_file("PEM file: the public half of an RSA key, for RS256.", "public key"),
    "secret": {"type": "string", "nullable": True, "meta": {"doc": "The secret, for HS256. Better: `secret_file`."}},
    "secret_file": _optional_file("Holds the secret, for HS256. One newline at its end does not count.", "secret"),
}

SIGNING: Rule = {
    "algorithm": _choice("How tokens are signed.", "RS256", "HS256", required=True),
    "key_id": _text("The `kid` of the tokens.", "printable", required=True),
    "private_key_file": _optional_file(
        "PEM file: the RSA key for RS256, at least 2048 bits. Left out, a key is made at each start, and a "
        "restart makes all tokens invalid.",
        "signing key",
    ),
    "secret": {
        "type": "string",
        "nullable": True,
        "meta": {"doc": "The secret of HS256, at least 32 bytes. Better: `secret_file`."},
    },
    "secret_file": _optional_file("Holds the secret of HS256. One newline at its end does not count.", "secret"),
    "accepted": _list(
        "Keys that verify the gateway's tokens without signing them, while the signing key is rotated.",
        _map("", model.AcceptedKey, ACCEPTED),
    ),
}

CLIENT: Rule = {
    "id": _text("Its `client_id`.", "client id", required=True),
    "secret_hash": _list(
        "Made by `apigw hash-secret`. Several while a secret is rotated.", _item("hash"), required=True, minlength=1
    ),
    "roles": _list("Its tokens carry them.", _item("role")),
    "scopes": _list("It may ask for these.", _item("scope")),
}

OAUTH: Rule = {
    "signing": _map("The key that signs tokens.", model.OAuthSigning, SIGNING, required=True),
    "issuer": _text("The `iss` of the tokens.", "printable", required=True),
    "audience": _list("The `aud` of the tokens.", _item("printable")),
    "token_lifetime": _duration("How long a token is valid.", "1s", _MONTH),
    "rate_limit": _map("Token requests of each client.", model.Quota, QUOTA),
    "refresh_tokens": _switch("Whether clients get refresh tokens."),
    "clients": _list("Who may have tokens.", _map("", model.OAuthClient, CLIENT)),
}

AUTH: Rule = {
    "jwt": _list("Whose tokens are believed. No two may accept the same token.", _map("", model.JWTVerifier, JWT)),
    "oauth": _map("The gateway's own token endpoint, `POST /oauth/token`.", model.OAuth, OAUTH, nullable=True),
}

RATE_LIMIT: Rule = {
    "endpoint": _text("A path pattern, as in routes. All limits that match a request apply.", "pattern", required=True),
    "limit": _whole("So many requests pass.", 1, 1_000_000_000, required=True),
    "window": _duration("In any time as long as this.", "1ms", _MONTH, required=True),
    "scope": _choice(
        "Counts for each caller (its address without one), each address (IPv6: each /64), or all together.",
        "user",
        "ip",
        "endpoint",
        required=True,
    ),
    "algorithm": _choice(
        "`log` is exact, `counter` needs little memory, `auto` is `log` up to a limit of 1,000.",
        "auto",
        "log",
        "counter",
    ),
    "on_store_failure": _choice(
        "Without Redis, `local` counts in memory, `open` lets through, `closed` answers 503.", "local", "open", "closed"
    ),
}

ROOT: Rule = {
    "gateway": _map("The daemon itself.", model.Gateway, GATEWAY),
    "redis": _map(
        "Where limits are counted for several gateways together; without it, in memory.",
        model.Redis,
        REDIS,
        nullable=True,
    ),
    "services": {
        "type": "dict",
        "valuesrules": _map("", model.Service, SERVICE),
        "meta": {"doc": "The backends, by name."},
    },
    "routes": _list("Which requests go where.", _map("", model.Route, ROUTE)),
    "auth": _map("Who may call.", model.Auth, AUTH, nullable=True),
    "rate_limits": _list("How often.", _map("", model.RateLimit, RATE_LIMIT)),
}
