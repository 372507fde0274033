"""The schema of a service: the keys below ``services.NAME``."""

from __future__ import annotations

from apigw.config import model
from apigw.config.keys import (
    DAY,
    Rule,
    choice,
    duration,
    list_of,
    map_of,
    one_or_several,
    optional_file,
    share,
    switch,
    text,
    whole,
)

TARGET: Rule = {
    "url": text(
        "`http://host:port` or `https://host:port`. Names are looked up for each new connection. If that fails, or "
        "takes longer than 0.25 s, the last good addresses are used, for up to 10 minutes.",
        "target",
    ),
    "dns": text(
        "`http://name:port`, or `https://`, in place of `url`: each address that DNS has for the name is a target "
        "([names](services.md#names)).",
        "dns target",
    ),
    "srv": text(
        "`http://_service._tcp.name`, or `https://`, in place of `url`: each host, port and weight of its SRV records.",
        "srv target",
    ),
    "weight": whole(
        "Its share of the requests, or that of each address of a name, relative to the weights of the other targets. "
        "`0` for no requests but those that have begun.",
        0,
        1000,
    ),
    "allow_local": switch(
        "Whether addresses of this machine, and link-local ones, that DNS has for the name are used."
    ),
}

BALANCE: Rule = {
    "hash": {
        "type": ["string", "dict"],
        "form": "hashed by",
        "required": True,
        "schema": {
            "header": text("The header of the request whose value it is.", "token"),
            "cookie": text("The cookie of the request whose value it is.", "token"),
        },
        "meta": {
            "doc": "What requests of one target have in common: the address of the client, the authenticated caller "
            "(`principal`), or the value of a header or a cookie. Where there is none, it is the address.",
            "model": model.HashedBy,
        },
    },
}

EJECTION: Rule = {
    "failures": whole("After so many failures in a row.", 1, 1000),
    "for": duration(
        "For how long. Each further time it is twice as long, up to 5 minutes, unless the last was over for 5 minutes.",
        "100ms",
        "5m",
    ),
    "most": share("No more of the targets than this, rounded down; one always stays.", "0%", "100%"),
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

ALWAYS_VERIFIED = dict.fromkeys(
    ("insecure", "insecure_skip_verify", "insecureskipverify", "skip_verify", "ssl_verify", "tls_verify", "verify"),
    "https:// targets are always verified; for an authority of your own: tls: {ca_file: …}",
)

HEALTH_CHECK: Rule = {
    "path": text("Requested with GET.", "request path"),
    "grpc": switch(
        "Whether the check is that of gRPC (`grpc.health.v1`), instead of a GET; not with `protocol: http1`.",
        nullable=True,
        default="with `protocol: grpc`",
    ),
    "grpc_service": text(
        "The gRPC service to ask about, such as `shop.v1.Orders`. `null` for the whole server.",
        "printable",
        nullable=True,
    ),
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
    "error_rate": share("The circuit opens when this share of the requests has failed.", "0.1%", "100%"),
    "window": duration("The sliding window in which outcomes are counted.", "1s", "1h"),
    "min_requests": whole("The circuit does not open on fewer outcomes.", 1, 1_000_000),
    "open_for": duration("How long it stays open before it becomes half-open.", "100ms", "1h"),
    "half_open_requests": whole(
        "How many trial requests at a time pass while it is half-open, and how many must succeed to close it.", 1, 1000
    ),
}

RETRY_ON = ("connect", "reset", 408, 425, 429, 500, 502, 503, 504)

_RETRY_ON_MEANT = {
    "timeout": "504",
    "error": "connect and reset",
    "connect-failure": "connect",
    "invalid_header": "502",
    "gateway-error": "502, 503 and 504",
    "5xx": "500, 502, 503 and 504",
    "unavailable": "503",
}
"""Envoy's words, nginx's, and gRPC's."""

RETRY: Rule = {
    "on": list_of(
        "What a try may end with to be repeated: no connection (`connect`), a connection that is lost before the head "
        "of the answer (`reset`), and statuses. `502` includes invalid answers, `504` tries that time out.",
        {"type": ["string", "integer"], "allowed": list(RETRY_ON), "meta": {"number": "{}", "meant": _RETRY_ON_MEANT}},
        minlength=1,
    ),
    "tries": whole("How often a request is sent at most, with the first time.", 2, 10),
    "per_try_timeout": duration(
        "For the head of the answer to one try, from when it is sent.",
        "1ms",
        DAY,
        nullable=True,
        default="the route's `timeout`",
    ),
    "methods": one_or_several(
        "Which requests are repeated: those with an idempotent method (RFC 9110 §9.2.2), `all`, or those with one of "
        "the methods listed. `[idempotent, POST]` is possible, too.",
        "retried",
    ),
    "budget": share(
        "Of the service's requests in flight, how many may be retries at a time; 3 always may.", "0.1%", "100%"
    ),
}

SERVICE: Rule = {
    "targets": list_of(
        "Its addresses: URLs, or maps with `url`, `dns` or `srv`.",
        {
            "type": ["string", "dict"],
            "form": "target",
            "schema": TARGET,
            "meta": {
                "doc": "",
                "model": model.Target,
                "meant": dict.fromkeys(("host", "port", "address"), 'url: "http://HOST:PORT"'),
            },
        },
        required=True,
        minlength=1,
    ),
    "protocol": choice(
        "HTTP/1.1 (`http1`), HTTP/2 over TLS to `https` targets (`h2`), or HTTP/2 without TLS (`h2c`). `auto`: what an "
        "`https` target chooses by ALPN, and HTTP/1.1 to `http` targets. `grpc`: HTTP/2 to both, and health checks by "
        "gRPC.",
        "auto",
        "http1",
        "h2",
        "h2c",
        "grpc",
        meant={
            **dict.fromkeys(("http2", "http/2"), "'h2', or 'h2c' for http:// targets"),
            **dict.fromkeys(("http/1.1", "http1.1", "http"), "'http1'"),
        },
    ),
    "tls": map_of(
        "For `https` targets, which are always verified.",
        model.UpstreamTLS,
        UPSTREAM_TLS,
        instead=ALWAYS_VERIFIED,
        like="{ca_file: …}, for https:// targets",
    ),
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
    "balance": {
        "type": ["string", "dict"],
        "form": "balance",
        "schema": BALANCE,
        "meta": {
            "doc": "How requests are shared out among the targets: in turn, to the less busy of two random ones, or "
            "`{hash: …}` for requests with something in common to the same one ([more](services.md#balance)).",
            "default": "`round_robin`",
            "model": model.Balance,
        },
    },
    "slow_start": duration(
        "For how long the share of a target grows, from a tenth of its weight, when it comes back or is new. `null` "
        "for none.",
        "1s",
        "1h",
        nullable=True,
    ),
    "ejection": map_of(
        "Targets that fail get no requests for a while: those without connections, without an answer in time, or with "
        "a status of 500 or more. `null` for never.",
        model.Ejection,
        EJECTION,
        nullable=True,
        default="as below",
    ),
    "max_requests": whole(
        "Maximum number of requests to the service at a time, WebSockets not counted. More wait, as for a connection: "
        "`max_pending` of them. `null` for no limit.",
        1,
        1_000_000,
        nullable=True,
    ),
    "health_check": map_of(
        "Active health check of each target. Without it, `/ready` tries a TCP connection.",
        model.HealthCheck,
        HEALTH_CHECK,
        nullable=True,
        like="{path: /health}",
        meant={**dict.fromkeys(("uri", "url"), "'path'"), **dict.fromkeys(("every", "period"), "'interval'")},
    ),
    "circuit_breaker": map_of(
        "Circuit breaker: no requests to the service while it fails. `null` for none.",
        model.CircuitBreaker,
        CIRCUIT_BREAKER,
        nullable=True,
        like="{error_rate: 50%}",
        default="as below",
    ),
    "retry": map_of(
        "Which requests are [sent again](retries.md) when a try fails, besides those that the service has not got. "
        "`{}` for the defaults.",
        model.Retry,
        RETRY,
        nullable=True,
        like="{tries: 2}",
        meant={"retry_on": "'on'", **dict.fromkeys(("attempts", "num_retries", "retries"), "'tries'")},
    ),
}

SERVICE_MEANT = {
    **dict.fromkeys(("address", "target", "url", "servers", "nodes", "endpoints"), 'targets: ["http://…"]'),
    **dict.fromkeys(("sticky", "affinity", "session_affinity"), "balance: {hash: {cookie: …}}"),
    **dict.fromkeys(("algorithm", "lb_policy", "load_balancing", "strategy"), "'balance'"),
    **{key: f'targets: [{{{key}: "http://…"}}]' for key in ("dns", "srv")},
}
"""What people write in place of ``targets`` and ``balance``."""
