"""The Cerberus schema of a configuration: the core's keys, and the whole with those that policies add."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from apigw.config import model
from apigw.config.keys import (
    DAY,
    MONTH,
    Keys,
    Rule,
    choice,
    duration,
    file,
    item,
    list_of,
    map_of,
    optional_file,
    size,
    switch,
    text,
    whole,
)
from apigw.config.problem import Path

CERTIFICATE: Rule = {
    "cert_file": file("PEM file: the certificate, then its intermediate ones.", "certificate", required=True),
    "key_file": file("PEM file: the certificate's private key, without a passphrase.", "private key", required=True),
}

SERVER_TLS: Rule = {
    "certificates": list_of(
        "Chosen by the client's server name (SNI); the first is for clients without one.",
        map_of("", model.Certificate, CERTIFICATE),
        required=True,
        minlength=1,
    ),
    "min_version": choice("The oldest TLS version that is spoken, in quotes.", "1.2", "1.3"),
    "client_ca_file": optional_file(
        "PEM file: clients must have a certificate of one of these authorities (mutual TLS).",
        "certificate",
    ),
}

LISTEN: Rule = {
    "endpoint": text(
        "A Twisted endpoint string: `tcp:`, `tcp6:`, `ssl:`, `unix:` or `systemd:`.", "endpoint", required=True
    ),
    "tls": map_of("Speak TLS here, with HTTP/2 by ALPN.", model.ServerTLS, SERVER_TLS, nullable=True),
    "proxy_protocol": switch(
        "Every connection begins with a header of the PROXY protocol, version 1 or 2, which is believed whoever sends "
        "it: the client's address is the one that it names. TLS begins behind it."
    ),
}

ACCESS_LOG: Rule = {
    "file": text("A file, or `-` for stdout, which is an error when daemonised.", "file"),
    "format": choice("JSON, or the combined format of Apache and nginx.", "json", "combined"),
}

GATEWAY: Rule = {
    "listen": list_of(
        "Public listeners: endpoint strings, or maps with `endpoint` and more. `null` entries are ignored. "
        "Each has HTTP/1.1 and HTTP/2.",
        {
            "type": ["string", "dict"],
            "form": "endpoint",
            "schema": LISTEN,
            "nullable": True,
            "meta": {"doc": "", "model": model.Listen},
        },
        minlength=1,
    ),
    "admin": text(
        "The admin listener, for operators: `/metrics`, `/health`, `/ready`, status. `null` for none.",
        "endpoint",
        nullable=True,
    ),
    "admin_token_file": optional_file(
        "Holds the token for writes. Without it the admin listener is read-only.", "admin token"
    ),
    "admin_hosts": list_of(
        "Names by which the admin listener is asked, besides `localhost` and addresses; any other `Host` is 421.",
        item("host"),
    ),
    "request_timeout": duration(
        "How long a service may take to its response headers, and then between two pieces of its body.",
        "1ms",
        DAY,
    ),
    "client_body_timeout": duration(
        "How long a client may stall while it sends (then 408) or reads (then the connection is cut).", "1ms", DAY
    ),
    "client_header_timeout": duration("A request's headers must be complete within this time, else 408.", "1ms", "1h"),
    "client_least_rate": size(
        "Minimum rate in bytes a second of a body with a `Content-Length`, averaged over 30 s in which the gateway "
        "was reading. A slower one is answered 408. `null` for no minimum.",
        "1",
        "1GiB",
        nullable=True,
    ),
    "keepalive_timeout": duration("How long an idle connection of a client stays open.", "1ms", DAY),
    "tunnel_idle_timeout": duration(
        "A WebSocket is closed after this time without data from either side.", "1s", MONTH
    ),
    "drain_timeout": duration(
        "How long exchanges in flight may take to finish after SIGTERM, before they are cut.", "0s", DAY
    ),
    "drain_delay": duration("How long `/ready` answers 503 before the ports close at SIGTERM.", "0s", "1h"),
    "max_header_size": size("All headers of a request together; larger ones are answered 431.", "1KiB", "1MiB"),
    "max_header_count": whole("Number of headers in a request; more are answered 431.", 1, 10_000),
    "max_body_size": size(
        "A request's body; a larger one is answered 413. `null` for no limit.", "0", "1024GiB", nullable=True
    ),
    "max_buffered": size(
        "All buffered request bodies (`buffer_body` of routes) together; beyond it, bodies are streamed.",
        "0",
        "1024GiB",
    ),
    "max_connections": whole(
        "Open connections of clients. The gateway raises its limit on open files for it. Where that is not allowed, it "
        "uses fewer connections, with a warning.",
        1,
        1_000_000,
    ),
    "max_connections_per_address": whole(
        "Of those, connections of one address (IPv6: of a /64); more are closed at once. Loopback, unix sockets and "
        "`trusted_proxies` are not bound by it. `null` for no such bound.",
        1,
        1_000_000,
        nullable=True,
    ),
    "max_requests": whole(
        "Requests in flight, WebSockets and event streams too; more are answered 503 `overloaded`.",
        1,
        10_000_000,
        nullable=True,
        default="twice `max_connections`",
    ),
    "trusted_proxies": list_of(
        "Networks whose `X-Forwarded-For` is believed; it is read from the right. `unix:` for peers of a unix socket.",
        item("proxy"),
    ),
    "metrics_allow": list_of(
        "Networks of clients that may read `/metrics` on the public ports, also behind `trusted_proxies`; others get "
        "404, and so do requests through other proxies.",
        item("network"),
    ),
    "access_log": map_of("One line for each request. `null` for none.", model.AccessLog, ACCESS_LOG, nullable=True),
}

REDIS: Rule = {
    "url": text(
        "`redis://host:port/database`, or `rediss://` for verified TLS. Without a password.", "redis url", required=True
    ),
    "password_file": optional_file("Holds the password. Read again at each connection attempt.", "password"),
    "ca_file": optional_file(
        "PEM file: the authorities that a `rediss://` server's certificate is verified with; else the system's.",
        "certificate",
    ),
    "sentinels": list_of("`host:port` of each Sentinel; needs `sentinel_name`.", item("host:port")),
    "sentinel_name": text("The name of the master, as configured at the Sentinels.", "printable", nullable=True),
    "prefix": text("Prefix of every key.", "printable"),
    "timeout": duration("A slower answer counts as a failure.", "1ms", "1m"),
}

TARGET: Rule = {
    "url": text(
        "`http://host:port` or `https://host:port`. Names are looked up for each new connection. If that fails, or "
        "takes longer than 0.25 s, the last good addresses are used, for up to 10 minutes.",
        "target",
        required=True,
    ),
    "weight": whole("Its share of the requests, relative to the weights of the other targets.", 1, 1000),
}

UPSTREAM_TLS: Rule = {
    "ca_file": optional_file(
        "PEM file: the authorities that the targets' certificates are verified with; else the system's.", "certificate"
    ),
    "server_name": text("The name for SNI and verification, instead of the target's host.", "host", nullable=True),
    "client_cert_file": optional_file(
        "PEM file: the gateway's client certificate (mutual TLS); needs `client_key_file`.", "certificate"
    ),
    "client_key_file": optional_file("PEM file: its private key, without a passphrase.", "private key"),
}

HEALTH_CHECK: Rule = {
    "path": text("Requested with GET.", "request path"),
    "host": text("The `Host` of the requests.", "host", nullable=True, default="the target's"),
    "expected_status": list_of(
        "The statuses that pass.",
        {"type": "integer", "min": 200, "max": 599},
        minlength=1,
        nullable=True,
        default="all below 400",
    ),
    "interval": duration("From one check to the next.", "100ms", "1h"),
    "timeout": duration("A check that takes longer has failed.", "10ms", "5m"),
    "unhealthy_after": whole("A target is unhealthy after so many failures in a row.", 1, 100),
    "healthy_after": whole("It is healthy again after so many successes in a row.", 1, 100),
}

CIRCUIT_BREAKER: Rule = {
    "error_rate": {
        "type": "number",
        "min": 0.001,
        "max": 1,
        "meta": {"doc": "The circuit opens when this share of the requests has failed: above 0, up to 1."},
    },
    "window": duration("The sliding window in which outcomes are counted.", "1s", "1h"),
    "min_requests": whole("The circuit does not open on fewer outcomes.", 1, 1_000_000),
    "open_for": duration("How long it stays open before it becomes half-open.", "100ms", "1h"),
    "half_open_requests": whole(
        "How many trial requests at a time pass while it is half-open, and how many must succeed to close it.", 1, 1000
    ),
}

SERVICE: Rule = {
    "targets": list_of(
        "Its addresses: URLs, or maps with `url` and `weight`.",
        {"type": ["string", "dict"], "form": "target", "schema": TARGET, "meta": {"doc": "", "model": model.Target}},
        required=True,
        minlength=1,
    ),
    "protocol": choice(
        "HTTP/1.1 (`http1`), HTTP/2 over TLS to `https` targets (`h2`), or HTTP/2 without TLS (`h2c`). `auto`: what an "
        "`https` target chooses by ALPN, and HTTP/1.1 to `http` targets.",
        "auto",
        "http1",
        "h2",
        "h2c",
    ),
    "tls": map_of("For `https` targets, which are always verified.", model.UpstreamTLS, UPSTREAM_TLS),
    "connect_timeout": duration(
        "For a new connection, with look-up of the name and TLS handshake; also for the wait for a free connection.",
        "1ms",
        "10m",
    ),
    "timeout": duration(
        "Replaces `gateway.request_timeout`.", "1ms", DAY, nullable=True, default="`gateway.request_timeout`"
    ),
    "keepalive_timeout": duration(
        "How long an idle connection to the service is kept. Less than the service's own (Node: 5 s).", "0s", DAY
    ),
    "max_connections": whole(
        "Maximum number of connections to each target. When a request has waited for one for 250 ms, the request with "
        "the slowest client is ended, by 408 or by closing, if that client is slower than 1 KiB/s.",
        1,
        100_000,
    ),
    "max_pending": whole(
        "How many requests may wait for a connection to each target, up to `connect_timeout`. Further ones, and those "
        "that got none in time, get 503 `overloaded`.",
        0,
        1_000_000,
    ),
    "max_connection_age": duration(
        "An older connection gets no further request, and is closed when it is idle: so a change of the name's "
        "addresses is followed. Up to a tenth less, at random. `null` for no limit.",
        "1s",
        DAY,
        nullable=True,
    ),
    "max_connection_requests": whole(
        "A connection gets no more requests than this; up to a tenth fewer, at random. `null` for no limit.",
        1,
        1_000_000_000,
        nullable=True,
    ),
    "preserve_host": switch("Whether the service gets the client's `Host`, instead of the target's."),
    "critical": switch("Whether `/ready` is 503 while none of its targets answers."),
    "health_check": map_of(
        "Active health check of each target. Without it, `/ready` tries a TCP connection.",
        model.HealthCheck,
        HEALTH_CHECK,
        nullable=True,
    ),
    "circuit_breaker": map_of(
        "Circuit breaker: no requests to the service while it fails. `null` for none.",
        model.CircuitBreaker,
        CIRCUIT_BREAKER,
        nullable=True,
        default="as below",
    ),
}

ROUTE: Rule = {
    "path": text(
        "A path pattern: literal segments, `:name` for one segment, and `*` at the end for the rest.",
        "pattern",
        required=True,
    ),
    "service": {"type": "string", "required": True, "meta": {"doc": "The service that gets the requests."}},
    "methods": list_of(
        "HTTP methods in capitals. GET includes HEAD.",
        item("method"),
        minlength=1,
        nullable=True,
        default="all",
    ),
    "strip_prefix": text(
        "Literal segments that are removed from the beginning of the path that the service gets.",
        "prefix",
        nullable=True,
    ),
    "timeout": duration(
        "Replaces the service's `timeout`.", "1ms", DAY, nullable=True, default="the service's `timeout`"
    ),
    "max_body_size": size(
        "Replaces `gateway.max_body_size`. `null` for no limit.",
        "0",
        "1024GiB",
        nullable=True,
        default="`gateway.max_body_size`",
    ),
    "buffer_body": size(
        "A request body with a `Content-Length` up to this is read whole before a connection to the service is taken. "
        "Larger bodies, and those of unknown length, are streamed once their first piece has arrived. `0` streams at "
        "once; gRPC always does.",
        "0",
        "16MiB",
    ),
}

_ROOT: Rule = {
    "gateway": map_of("The gateway itself: listeners, timeouts, sizes, logs.", model.Gateway, GATEWAY),
    "redis": map_of(
        "Shared storage of limits and refresh tokens for several gateways. Without it: memory of each process.",
        model.Redis,
        REDIS,
        nullable=True,
    ),
    "services": {
        "type": "dict",
        "valuesrules": map_of("", model.Service, SERVICE),
        "meta": {"doc": "The backends, by name."},
    },
    "routes": list_of("Which requests go to which service.", map_of("", model.Route, ROUTE)),
}


def compose(keys: Iterable[Keys]) -> Rule:
    """The schema of a whole configuration. In ``meta`` of an added key, ``owner`` is the class for its value.

    Keys nearer to the top are added first, because a policy may add to the section of another one. Raises
    ``ValueError`` for a key that exists already.
    """
    root: Rule = {"schema": _ROOT}
    for each in sorted(keys, key=lambda each: len(each.at)):
        root = _with(each, root, each.at)
    schema: Rule = root["schema"]
    return schema


def _with(keys: Keys, rule: Rule, at: tuple[str, ...]) -> Rule:
    """``rule`` with the keys in the map that is ``at`` below it."""
    if "valuesrules" in rule:
        return {**rule, "valuesrules": _with(keys, rule["valuesrules"], at)}
    if rule.get("type") == "list":
        return {**rule, "schema": _with(keys, rule["schema"], at)}
    schema = rule["schema"]
    if at:
        return {**rule, "schema": {**schema, at[0]: _with(keys, schema[at[0]], at[1:])}}
    twice = schema.keys() & keys.rules.keys()
    if twice:
        raise ValueError(f"{', '.join(sorted(twice))} of {keys.model} is a key already")
    owned = {key: {**added, "meta": {**added["meta"], "owner": keys.model}} for key, added in keys.rules.items()}
    return {**rule, "schema": {**schema, **owned}}


def rule_at(schema: Rule, path: Path) -> Rule | None:
    """The rule for the value at ``path``; ``None`` if there is no such key."""
    *_, rule = _rules(schema, path)
    return rule


def is_secret(schema: Rule, path: Path) -> bool:
    """Whether the value at ``path`` is a secret, or a part of one."""
    return any(rule is not None and rule.get("meta", {}).get("secret") for rule in _rules(schema, path))


def _rules(schema: Rule, path: Path) -> Iterator[Rule | None]:
    """From the top down to ``path``; ``None`` at the end where there is no such key."""
    rule: Rule = {"schema": schema}
    yield rule
    for part in path:
        below = rule.get("schema", {})
        if "valuesrules" in rule:
            rule = rule["valuesrules"]
        elif rule.get("type") == "list" and isinstance(part, int):
            rule = below
        elif rule.get("type") != "list" and part in below:
            rule = below[part]
        else:
            yield None
            return
        yield rule
