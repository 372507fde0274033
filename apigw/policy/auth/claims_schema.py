"""How claims that are demanded are written, of a provider and of a route."""

from __future__ import annotations

from apigw.config.keys import Rule, named

VALUE: Rule = {
    "type": ["string", "number", "boolean", "list"],
    "schema": {"type": ["string", "number", "boolean"]},
    "minlength": 1,
    "meta": {"doc": ""},
}


def claims(doc: str) -> Rule:
    return named(
        f"{doc} By the claim's name, with dots into nested ones: the value, or a list of values, any of which will do. "
        "A claim that is a list must contain one.",
        VALUE,
        default="none",
    )
