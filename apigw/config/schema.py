"""The Cerberus schema of a configuration: the core's keys, and the whole with those that policies add."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from apigw.config import model
from apigw.config.defaults import rule_of_defaults
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
    may_be_list,
    named,
    number_or_word,
    one_or_several,
    optional_file,
    size,
    switch,
    text,
    whole,
)
from apigw.config.problem import Path
from apigw.config.schema_of_services import SERVICE, SERVICE_MEANT

CERTIFICATE: Rule = {
    "cert_file": file("PEM file: the certificate, then its intermediate ones.", "certificate", required=True),
    "key_file": file("PEM file: the certificate's private key, without a passphrase.", "private key", required=True),
}

SERVER_TLS: Rule = {
    "certificates": list_of(
        "Chosen by the client's server name (SNI); the first is for clients without one. Of two with the same names, "
        "an ECDSA and an RSA one, each client gets what it can verify.",
        map_of("", model.Certificate, CERTIFICATE),
        required=True,
        minlength=1,
    ),
    "min_version": choice("The oldest TLS version that is spoken, in quotes.", "1.2", "1.3"),
    "client_certificates": choice(
        "Whether clients show a certificate (mutual TLS). `optional`: they may have none; one that is not valid ends "
        "the handshake all the same. Sessions are not resumed then.",
        "none",
        "optional",
        "required",
        nullable=True,
        default="`required` with `client_ca_file`, else `none`",
        meant={"require": "required", "on": "required", "request": "optional", "want": "optional", "off": "none"},
    ),
    "client_ca_file": optional_file(
        "PEM file: the authorities of clients' certificates. Without it, those of all `auth.mtls`.", "certificate"
    ),
}

ACCESS_LOG_FIELDS = (
    "time",
    "level",
    "request_id",
    "client",
    "method",
    "host",
    "path",
    "route",
    "status",
    "made_by",
    "code",
    "reason",
    "bytes_in",
    "bytes_out",
    "duration_ms",
    "upstream",
    "upstream_ms",
    "principal",
    "protocol",
    "referer",
    "user_agent",
    "grpc_status",
    "tries",
    "service",
    "trace_id",
)

PORT = "tcp:{}"
"""What is meant by a number where an endpoint must be."""

LISTEN: Rule = {
    "endpoint": text(
        "A Twisted endpoint string: `tcp:`, `tcp6:`, `ssl:`, `unix:` or `systemd:`.",
        "endpoint",
        required=True,
        number=PORT,
    ),
    "tls": map_of(
        "Speak TLS here, with HTTP/2 by ALPN.",
        model.ServerTLS,
        SERVER_TLS,
        nullable=True,
        meant=dict.fromkeys(CERTIFICATE, "certificates: [{cert_file: …, key_file: …}]"),
    ),
    "proxy_protocol": switch(
        "Every connection begins with a header of the PROXY protocol, version 1 or 2, which is believed whoever sends "
        "it: the client's address is the one that it names. TLS begins behind it."
    ),
}

ACCESS_LOG: Rule = {
    "file": text("A file, or `-` for stdout, which is an error when daemonised.", "file"),
    "format": choice("JSON, or the combined format of Apache and nginx.", "json", "combined"),
    "fields": list_of(
        "The fields of each line of JSON, in this order; one that does not apply is null there. Without the key: those "
        "of [access log](access-log.md).",
        {"type": "string", "allowed": list(ACCESS_LOG_FIELDS)},
        default="the usual ones",
        minlength=1,
    ),
}

LOG: Rule = {
    "format": choice("Text, or JSON with the same first fields as the access log.", "text", "json"),
    "level": choice("The lowest level that is written.", "debug", "info", "warn", "error"),
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
            "meta": {"doc": "", "model": model.Listen, "number": PORT},
        },
        minlength=1,
    ),
    "admin": text(
        "The admin listener, for operators: `/metrics`, `/health`, `/ready`, status. `null` for none.",
        "endpoint",
        nullable=True,
        number=f"{PORT}:interface=127.0.0.1",
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
    "client_request_timeout": duration(
        "How long a client may take to send a whole body, from its request's headers on; then it is answered 408, or "
        "cut where the answer has begun. `null` for no such limit.",
        "1ms",
        DAY,
        nullable=True,
    ),
    "stream_idle_timeout": duration(
        "How long a request whose body has no known length may be silent in both directions, once it is sent to the "
        "service and until its body ends. It replaces `client_body_timeout` and `request_timeout` for it, and for gRPC "
        "to the end of the answer.",
        "1ms",
        MONTH,
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
    "max_lag": duration(
        "New requests are answered 503 `overloaded` while the event loop is later than this "
        "(`gateway_reactor_lag_seconds`), from the third sample in a row on. `null` for no such limit.",
        "10ms",
        "1m",
        nullable=True,
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
    "log": map_of("The daemon's own log; a change needs a restart or an upgrade.", model.Log, LOG),
    "access_log": map_of("One line for each request. `null` for none.", model.AccessLog, ACCESS_LOG, nullable=True),
    "workers": number_or_word(
        "Processes that serve, as one gateway. `auto`: one for each core that the process may use (CPU affinity, the "
        "cgroup's quota). A change needs a restart; among several, an upgrade will do.",
        "workers",
        1,
        64,
    ),
    "watch_files": switch(
        "Reload when a file of the configuration, or one that it names, has changed, within some four seconds. A "
        "configuration with a problem is reported, and not used."
    ),
    "limits_memory": size(
        "With several workers: the memory that they share for rate limits without Redis. When it is full, the keys "
        "that were not used for longest are forgotten. A change needs a restart or an upgrade.",
        "1MiB",
        "64GiB",
    ),
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

CONDITION: Rule = {
    "equal": text("A value is this text. May be written in place of the map.", "value"),
    "present": switch("Whether there is a value.", default="none"),
    "regex": text("An expression of RE2 that matches a whole value.", "expression"),
}


def conditions(doc: str) -> Rule:
    meta = {"doc": "", "model": model.Condition, "short": "equal", "number": '"{}"'}
    return named(doc, {"type": ["string", "dict"], "form": "value", "schema": CONDITION, "meta": meta})


ROUTE: Rule = {
    "path": one_or_several(
        "A path pattern, or several: literal segments, `:name` for one segment, and `*` at the end for the rest.",
        "pattern",
        required=True,
    ),
    "hosts": list_of(
        "Hosts of the requests: names, addresses, and `*.` with a name, for one label or more in place of the `*`.",
        item("route host"),
        minlength=1,
        default="those that no route names",
    ),
    "name": text("Its name in logs, metrics and messages.", "name", default="its first host and path"),
    "service": {
        "type": "string",
        "meta": {
            "doc": "The service that gets the requests.",
            "default": "required, unless another key says who answers",
            "answers": True,
        },
    },
    "methods": list_of(
        "HTTP methods in capitals. GET includes HEAD.",
        item("method"),
        minlength=1,
        nullable=True,
        default="all",
    ),
    "strict_methods": switch(
        "Whether another method than those of the routes for this path is answered 405, instead of going on to a less "
        "specific route."
    ),
    "headers": conditions("What headers of the request must be, by name."),
    "query": conditions("What values of the query must be, by name, after decoding."),
    "cookies": conditions("What cookies must be, by name."),
    "encoded_slashes": choice(
        "A path with `%2F`: refused with 400, or kept as it is, as a part of its segment. The path of the route must "
        "begin with a literal segment.",
        "refuse",
        "keep",
    ),
    "empty_segments": choice("The same for a path with empty segments (`//`).", "refuse", "keep"),
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
    "access_log": switch(
        "`null` for no line in the access log; metrics count the requests all the same.", nullable=True, allowed=[True]
    ),
}

_ROOT: Rule = {
    "gateway": map_of("The gateway itself: listeners, timeouts, sizes, logs.", model.Gateway, GATEWAY),
    "redis": map_of(
        "Shared storage of limits and refresh tokens for several gateways. Without it: memory of each gateway.",
        model.Redis,
        REDIS,
        nullable=True,
    ),
    "services": {
        "type": "dict",
        "valuesrules": map_of("", model.Service, SERVICE, meant=SERVICE_MEANT),
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
    return {**schema, "defaults": rule_of_defaults(schema)}


def _with(keys: Keys, rule: Rule, at: tuple[str, ...]) -> Rule:
    """``rule`` with the keys in the map that is ``at`` below it."""
    if "valuesrules" in rule:
        return {**rule, "valuesrules": _with(keys, rule["valuesrules"], at)}
    if may_be_list(rule):
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
        if "valuesrules" in rule and part not in below:
            rule = rule["valuesrules"]
        elif may_be_list(rule) and isinstance(part, int):
            rule = below
        elif not may_be_list(rule) and part in below:
            rule = below[part]
        else:
            yield None
            return
        yield rule
