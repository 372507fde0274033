"""The keys of changes to requests and answers."""

from __future__ import annotations

from apigw.config.keys import Keys, Rule, item, list_of, map_of, named, text
from apigw.policy.transform.model import HeaderRules, Rewrite, TransformOfRoute


def header_rules(whose: str) -> Rule:
    return {
        "set": named(f"Headers that {whose} gets, in place of its own of that name.", item("header value")),
        "add": named(f"Headers that {whose} gets, besides its own of that name.", item("header value")),
        "remove": list_of(f"Names of headers that {whose} loses.", item("header rule")),
    }


REWRITE: Rule = {
    "path": text(
        "The path that the service gets. The client's query stays, unless a `?` is written. Not with `strip_prefix`.",
        "rewritten path",
        nullable=True,
    ),
    "host": text(
        "The `Host` that the service gets, also with `preserve_host`.",
        "rewritten host",
        nullable=True,
    ),
}

OF_ROUTE: Rule = {
    "rewrite": map_of(
        "Another path or host for the service. Values may have [braces](rewriting.md#braces).",
        Rewrite,
        REWRITE,
        nullable=True,
        like="{path: /…}",
        instead=dict.fromkeys(
            ("pattern", "regex", "replacement", "rewrite_target"),
            "what a parameter of the path has matched is written in braces: path: /…/{param.rest}",
        ),
    ),
    "request_headers": map_of(
        "[Changes](rewriting.md#headers) to the headers that the service gets.",
        HeaderRules,
        header_rules("the request"),
        merge="names",
    ),
    "response_headers": map_of(
        "[Changes](rewriting.md#headers) to the headers of every answer, also of the gateway's own.",
        HeaderRules,
        header_rules("the answer"),
        merge="names",
    ),
}

KEYS = (Keys(("routes",), TransformOfRoute, OF_ROUTE),)
