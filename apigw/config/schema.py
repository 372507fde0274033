"""What may stand in a configuration, as data: the core's own keys, and the whole with those that policies add."""

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
        "Chosen by the name that the client asks for; the first is for clients that ask for none.",
        map_of("", model.Certificate, CERTIFICATE),
        required=True,
        minlength=1,
    ),
    "min_version": choice("The oldest TLS version that is spoken, in quotes.", "1.2", "1.3"),
    "client_ca_file": optional_file(
        "PEM file: clients must show a certificate that one of these signed.", "certificate"
    ),
}

LISTEN: Rule = {
    "endpoint": text(
        "A Twisted endpoint string: `tcp:`, `tcp6:`, `ssl:`, `unix:` or `systemd:`.", "endpoint", required=True
    ),
    "tls": map_of("Speak TLS here, with HTTP/2 by ALPN.", model.ServerTLS, SERVER_TLS, nullable=True),
}

ACCESS_LOG: Rule = {
    "file": text("A file, or `-` for stdout, which is an error when daemonised.", "file"),
    "format": choice("JSON, or the combined format of Apache and nginx.", "json", "combined"),
}

GATEWAY: Rule = {
    "listen": list_of(
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
    "admin": text(
        "Where operators connect: `/metrics`, `/health`, `/ready`, status, JSON. `null` for none.",
        "endpoint",
        nullable=True,
    ),
    "admin_token_file": optional_file(
        "Holds the token for writes. Without it the admin listener answers reads only.", "admin token"
    ),
    "admin_hosts": list_of(
        "Names by which the admin listener is asked, besides `localhost` and addresses; any other `Host` is 421.",
        item("host"),
    ),
    "request_timeout": duration(
        "Runs only while the gateway waits for the upstream: to its headers, and between two pieces of its body.",
        "1ms",
        DAY,
    ),
    "client_body_timeout": duration("For a client that stalls while sending (408) or reading (cut).", "1ms", DAY),
    "client_header_timeout": duration("A request's headers must be complete by then.", "1ms", "1h"),
    "client_least_rate": size(
        "Bytes a second that a body of known length must bring, on average over each 30 s in which the gateway asked "
        "for more; a slower one is 408. `null` for no least rate.",
        "1",
        "1GiB",
        nullable=True,
    ),
    "keepalive_timeout": duration("How long an idle connection of a client stays open.", "1ms", DAY),
    "tunnel_idle_timeout": duration(
        "A WebSocket over which nothing comes from either side for so long ends.", "1s", MONTH
    ),
    "drain_timeout": duration(
        "How long exchanges in flight may take to finish after SIGTERM, before they are cut.", "0s", DAY
    ),
    "drain_delay": duration("`/ready` says 503 this long before the ports close.", "0s", "1h"),
    "max_header_size": size("All headers of a request together; more is answered with 431.", "1KiB", "1MiB"),
    "max_header_count": whole("Headers in a request; more are answered with 431.", 1, 10_000),
    "max_body_size": size(
        "A request's body; more is answered with 413. `null` for no limit.", "0", "1024GiB", nullable=True
    ),
    "max_buffered": size(
        "All request bodies that are buffered (`buffer_body` of routes) together; above it, bodies stream.",
        "0",
        "1024GiB",
    ),
    "max_connections": whole(
        "Open connections of clients. The file limit is raised for it; lowered with a warning where it cannot be.",
        1,
        1_000_000,
    ),
    "trusted_proxies": list_of("CIDRs whose `X-Forwarded-For` is believed, walked from the right.", item("network")),
    "metrics_allow": list_of(
        "CIDRs of clients that may read `/metrics` on the public port, also behind `trusted_proxies`; others get 404, "
        "and so does what came through another proxy.",
        item("network"),
    ),
    "access_log": map_of("One line for each exchange. `null` for none.", model.AccessLog, ACCESS_LOG, nullable=True),
}

REDIS: Rule = {
    "url": text(
        "`redis://host:port/database`, or `rediss://`, which verifies. Without a password.", "redis url", required=True
    ),
    "password_file": optional_file("Holds the password. Read anew at every connection attempt.", "text"),
    "ca_file": optional_file("PEM file: who may have signed the certificate of a `rediss://` server.", "certificate"),
    "sentinels": list_of("`host:port` of each sentinel; with `sentinel_name`.", item("host:port")),
    "sentinel_name": text("The master's name at the sentinels.", "printable", nullable=True),
    "prefix": text("Begins every key.", "printable"),
    "timeout": duration("An answer that takes longer counts as a failure.", "1ms", "1m"),
}

TARGET: Rule = {
    "url": text(
        "`http://host:port` or `https://host:port`. Names are resolved anew for each connect.", "target", required=True
    ),
    "weight": whole("Its share of the requests, in proportion to the others'.", 1, 1000),
}

UPSTREAM_TLS: Rule = {
    "ca_file": optional_file(
        "PEM file: who may have signed the targets' certificates; else the system's.", "certificate"
    ),
    "server_name": text("The name to ask for and to verify, instead of the target's.", "host", nullable=True),
    "client_cert_file": optional_file("PEM file: the certificate to show; with `client_key_file`.", "certificate"),
    "client_key_file": optional_file("PEM file: its private key, without a passphrase.", "private key"),
}

HEALTH_CHECK: Rule = {
    "path": text("Asked for with GET.", "request path"),
    "interval": duration("From one check to the next.", "100ms", "1h"),
    "timeout": duration("A check that takes longer has failed.", "10ms", "5m"),
    "unhealthy_after": whole("So many failures in a row put a target aside.", 1, 100),
    "healthy_after": whole("So many successes in a row bring it back.", 1, 100),
}

CIRCUIT_BREAKER: Rule = {
    "error_rate": {
        "type": "number",
        "min": 0.001,
        "max": 1,
        "meta": {"doc": "Opens when this part of the requests has failed: above 0, up to 1."},
    },
    "window": duration("Counts the outcomes of this time.", "1s", "1h"),
    "min_requests": whole("Never opens on fewer outcomes.", 1, 1_000_000),
    "open_for": duration("How long it stays open before it tries again.", "100ms", "1h"),
    "half_open_requests": whole("So many requests at a time try whether it can close.", 1, 1000),
}

SERVICE: Rule = {
    "targets": list_of(
        "Its addresses: URLs, or maps with `url` and `weight`.",
        {"type": ["string", "dict"], "form": "target", "schema": TARGET, "meta": {"doc": "", "model": model.Target}},
        required=True,
        minlength=1,
    ),
    "tls": map_of("For `https` targets, which are always verified.", model.UpstreamTLS, UPSTREAM_TLS),
    "connect_timeout": duration("For a connection, TLS included, and for the wait for a free one.", "1ms", "10m"),
    "timeout": duration(
        "Instead of `gateway.request_timeout`.", "1ms", DAY, nullable=True, default="`gateway.request_timeout`"
    ),
    "keepalive_timeout": duration(
        "How long an idle connection to the service is kept (Node closes at 5 s).", "0s", DAY
    ),
    "max_connections": whole("Connections to each target.", 1, 100_000),
    "max_pending": whole(
        "That many more requests wait for a connection, up to `connect_timeout`; then 503 `overloaded`.", 0, 1_000_000
    ),
    "preserve_host": switch("Whether the client's `Host` goes to the service, instead of the target's."),
    "critical": switch("Whether `/ready` says 503 while none of its targets answers."),
    "health_check": map_of(
        "Ask each target how it is. Left out: a TCP connect.", model.HealthCheck, HEALTH_CHECK, nullable=True
    ),
    "circuit_breaker": map_of(
        "Stop calling the service while it fails.", model.CircuitBreaker, CIRCUIT_BREAKER, nullable=True
    ),
}

ROUTE: Rule = {
    "path": text(
        "A path pattern: literal segments, `:name` segments, and `*` at the end for the rest.", "pattern", required=True
    ),
    "service": {"type": "string", "required": True, "meta": {"doc": "The service that gets the requests."}},
    "methods": list_of(
        "HTTP methods in capitals. HEAD is served where GET is.",
        item("method"),
        minlength=1,
        nullable=True,
        default="all",
    ),
    "strip_prefix": text(
        "Whole literal segments that are cut off before the path goes to the service.", "prefix", nullable=True
    ),
    "timeout": duration("Instead of the service's.", "1ms", DAY, nullable=True, default="the service's `timeout`"),
    "max_body_size": size(
        "Instead of the gateway's. `null` for no limit.",
        "0",
        "1024GiB",
        nullable=True,
        default="`gateway.max_body_size`",
    ),
    "buffer_body": size(
        "A request's body whose `Content-Length` is at most this is read whole before a connection to the service is "
        "taken; a larger one, and one of unknown length, streams after its first piece. `0` streams at once, as gRPC "
        "always does.",
        "0",
        "16MiB",
    ),
}

_ROOT: Rule = {
    "gateway": map_of("The daemon itself.", model.Gateway, GATEWAY),
    "redis": map_of(
        "Where limits are counted for several gateways together; without it, in memory.",
        model.Redis,
        REDIS,
        nullable=True,
    ),
    "services": {
        "type": "dict",
        "valuesrules": map_of("", model.Service, SERVICE),
        "meta": {"doc": "The backends, by name."},
    },
    "routes": list_of("Which requests go where.", map_of("", model.Route, ROUTE)),
}


def compose(keys: Iterable[Keys]) -> Rule:
    """The schema of a whole configuration. In ``meta``, ``owner`` is the class that an added key's value goes to.

    A policy may add to the section of another one, so that those nearer to the top come first. Raises ``ValueError``
    for a key that is there already.
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
    """The rule for what stands at ``path``; ``None`` where there is no such key."""
    *_, rule = _rules(schema, path)
    return rule


def is_secret(schema: Rule, path: Path) -> bool:
    """Whether what stands at ``path`` is, or is part of, what must not be shown."""
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
