"""The Cerberus schema of a configuration: the core's keys, and the whole with those that policies add."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from apigw.config import model
from apigw.config.defaults import rule_of_defaults
from apigw.config.keys import (
    DAY,
    Keys,
    Rule,
    choice,
    duration,
    item,
    list_of,
    map_of,
    may_be_list,
    named,
    one_or_several,
    optional_file,
    size,
    switch,
    text,
)
from apigw.config.problem import Path
from apigw.config.schema_of_gateway import GATEWAY, GATEWAY_MEANT
from apigw.config.schema_of_services import ALWAYS_VERIFIED, SERVICE, SERVICE_MEANT

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
    entry = {"type": ["string", "dict"], "form": "value", "schema": CONDITION, "meta": meta}
    return named(doc, entry, like='{NAME: "value"}')


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
        like="/orders",
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

ROUTE_MEANT = {
    "prefix": "path: /…/*",
    **dict.fromkeys(("retries", "retry_policy"), "'retry', a key of services"),
    **dict.fromkeys(("location", "match", "uri", "uris"), "'path'"),
    **dict.fromkeys(("backend", "cluster", "upstream"), "'service'"),
}
"""What people write of routes in other gateways."""

ROUTE_INSTEAD = {
    **dict.fromkeys(
        ("priority", "order", "regex_priority", "rank"), "the most literal path wins, in whatever order (apigw routes)"
    ),
    **dict.fromkeys(("upgrade", "websocket", "websockets", "ws"), "WebSockets pass on every route"),
    **dict.fromkeys(("caching", "proxy_cache"), "no answer is stored"),
    **dict.fromkeys(("alias", "root", "static"), "the gateway serves no files"),
}

_ROOT: Rule = {
    "gateway": map_of(
        "The gateway itself: listeners, timeouts, sizes, logs.",
        model.Gateway,
        GATEWAY,
        meant=GATEWAY_MEANT,
        instead=dict.fromkeys(("h2", "h2c", "http2"), "every listener speaks HTTP/2"),
    ),
    "redis": map_of(
        "Shared storage of limits and refresh tokens for several gateways. Without it: memory of each gateway. "
        "A change of any key but `timeout` needs a restart or an upgrade.",
        model.Redis,
        REDIS,
        nullable=True,
        like="{url: redis://host:6379/0}",
        meant={
            **dict.fromkeys(("host", "port", "address", "addr", "db", "database"), "url: redis://HOST:PORT/DATABASE"),
            "password": "'password_file'",
        },
    ),
    "services": {
        "type": "dict",
        "valuesrules": map_of(
            "",
            model.Service,
            SERVICE,
            meant=SERVICE_MEANT,
            instead=ALWAYS_VERIFIED,
            like='{targets: ["http://…"]}',
        ),
        "meta": {"doc": "The backends, by name."},
    },
    "routes": list_of(
        "Which requests go to which service.", map_of("", model.Route, ROUTE, meant=ROUTE_MEANT, instead=ROUTE_INSTEAD)
    ),
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
    meta = rule.get("meta", {})
    told = {**meta, "meant": {**meta.get("meant", {}), **keys.meant}} if keys.meant else meta
    return {**rule, "schema": {**schema, **owned}, "meta": told}


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
