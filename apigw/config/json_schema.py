"""The JSON Schema of the configuration's files, for editors (``apigw schema``), made from the Cerberus schema.

It is for one file, and a service may be in one file and its route in another. So nothing is required at the top, and
what only ``apigw check`` can judge is allowed: whether a file exists, a name is known, a variable is set.
"""

from __future__ import annotations

import re
from typing import Any

from apigw.config.keys import Rule, may_be_list

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_VARIABLE: Schema = {"type": "string", "pattern": r"\$\{"}
_DURATION: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$"}
_SIZE: Schema = {"type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$"}
_SHARE: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"}
_NONE: Schema = {"type": "null"}
_TYPES = {"boolean": "boolean", "string": "string", "integer": "integer", "number": "number"}
_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")


def json_schema(schema: Rule) -> Schema:
    """For a file with keys by the rules of ``schema``."""
    properties = {key: _of(rule) for key, rule in schema.items()}
    return {
        "$schema": DIALECT,
        "title": "apigw",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _of(rule: Rule) -> Schema:
    possible = [*_possible(rule), *([_NONE] if rule.get("nullable") else [])]
    found: Schema = possible[0] if len(possible) == 1 else {"anyOf": possible}
    doc = rule.get("meta", {}).get("doc")
    return {"description": _plain(doc), **found} if doc else found


def _possible(rule: Rule) -> list[Schema]:
    if "duration" in rule:
        return [{"const": 0}, _DURATION, _VARIABLE]
    if "size" in rule:
        return [{"type": "integer", "minimum": 0}, _SIZE, _VARIABLE]
    if "share" in rule:
        return [{"type": "number", "minimum": 0, "maximum": 1}, _SHARE, _VARIABLE]
    kinds = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    found = [_one(kind, rule) for kind in kinds]
    if any(kind in _TYPES for kind in kinds):
        found.append(_VARIABLE)
    return found


def _one(kind: str, rule: Rule) -> Schema:
    if kind == "list":
        item = {key: value for key, value in rule["schema"].items() if key != "required"}
        return {"type": "array", "items": _of(item), **_bound(rule, "minlength", "minItems")}
    if kind == "dict":
        if "valuesrules" in rule:
            return {"type": "object", "additionalProperties": _of(rule["valuesrules"])}
        below = rule["schema"].get("schema") if may_be_list(rule) else rule.get("schema")
        if below is None:  # any keys
            return {"type": "object"}
        return {
            "type": "object",
            "properties": {key: _of(each) for key, each in below.items()},
            "additionalProperties": False,
        }
    found: Schema = {"type": _TYPES[kind]}
    if "allowed" in rule:
        found = {"enum": list(rule["allowed"])}
    elif kind in ("integer", "number"):
        found |= _bound(rule, "min", "minimum") | _bound(rule, "max", "maximum")
    return found


def _bound(rule: Rule, key: str, name: str) -> Schema:
    return {name: rule[key]} if key in rule else {}


def _plain(doc: str) -> str:
    """Without the marks of Markdown, which editors show as they are."""
    return _LINK.sub(r"\1", doc).replace("`", "")
