"""The Cerberus schema of ``gateway``."""

from __future__ import annotations

from apigw.config import model
from apigw.config.keys import (
    DAY,
    MONTH,
    Rule,
    choice,
    duration,
    file,
    item,
    list_of,
    map_of,
    number_or_word,
    optional_file,
    size,
    switch,
    text,
    whole,
)

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
        like="{certificates: [{cert_file: …, key_file: …}]}",
        meant=dict.fromkeys(
            (*CERTIFICATE, "cert", "certificate", "key", "private_key"), "certificates: [{cert_file: …, key_file: …}]"
        ),
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

AUDIT_LOG: Rule = {
    "file": text("A file, or `-` for stdout, which is an error when daemonised.", "file", required=True),
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
            "meta": {
                "doc": "",
                "model": model.Listen,
                "number": PORT,
                "meant": dict.fromkeys(("address", "host", "port"), 'endpoint: "tcp:8080:interface=127.0.0.1"'),
            },
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
    "log": map_of(
        "The daemon's own log. A change needs a restart or an upgrade.", model.Log, LOG, like="{level: debug}"
    ),
    "audit_log": map_of(
        "One line for each token that is issued, each change by operators and each reload: [audit log](audit-log.md). "
        "`null` for none. A change needs a restart or an upgrade.",
        model.AuditLog,
        AUDIT_LOG,
        nullable=True,
        like="{file: audit.log}",
    ),
    "access_log": map_of(
        "One line for each request. `null` for none. A change needs a restart or an upgrade.",
        model.AccessLog,
        ACCESS_LOG,
        nullable=True,
        like="{file: access.log}",
    ),
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

GATEWAY_MEANT = {
    "port": 'listen: ["tcp:8080"]',
    "tls": 'tls of a listener: listen: [{endpoint: "tcp:443", tls: {…}}]',
    "log_level": "log: {level: …}",
    "log_format": "log: {format: …}, or access_log",
    "timeout": "request_timeout",
}
"""What people write in place of keys of the gateway."""
