"""The schema that a plugin's class has for its settings: whether it is one, and what it makes of settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import cerberus

from apigw.config import units
from apigw.config.validate import Validator

_REFUSED = ("coerce", "rename", "rename_handler", "purge_unknown", "default_setter", "form")
"""Rules that change a document, but for ``default``, and those that only the gateway's own keys have."""
_READ: dict[str, Callable[[object], float]] = {
    "duration": units.seconds,
    "size": units.size,
    "share": units.share,
}


class _Checked(Validator):
    """Cerberus's own check of a schema, which ours is spared."""

    schema = cerberus.Validator.schema


def problem_of(schema: object) -> str | None:
    """Why a class's schema is none, as a fragment that follows "its schema"; None for a good one."""
    if not isinstance(schema, dict):
        return f"is no dict, but {type(schema).__name__}"
    try:
        refused = _refused_in(schema)
        if refused is not None:
            return f"has the rule {refused!r}, which is not supported here"
        _Checked(schema)
        contradiction = _contradiction(guarded(schema))
        if contradiction is None:
            made(schema, {})
        return contradiction
    except cerberus.SchemaError as error:
        return f"is not a valid Cerberus schema: {error}"
    except Exception as error:
        return f"is not a valid Cerberus schema: {error!r}"


def _contradiction(fields: Mapping[Any, Any]) -> str | None:
    """What no settings could comply with, or its own defaults do not. Raises what a rule raises that cannot be used."""
    return next((found for key, rule in fields.items() if (found := _contradicts(key, rule)) is not None), None)


def _contradicts(key: Any, rule: Mapping[str, Any]) -> str | None:
    re.compile(rule.get("regex", ""))
    default = rule.get("default")
    bounds = [(low, high, rule.get(low), rule.get(high)) for low, high in (("min", "max"), ("minlength", "maxlength"))]
    for kind, read in _READ.items():
        if kind in rule:
            if len(rule[kind]) != 2:
                return f"has no two bounds for {key!r}: write {kind!r}: [LEAST, MOST]"
            least, most = rule[kind]
            for what, value in (("bound", least), ("bound", most), ("default", default)):
                try:
                    read(least if value is None else value)
                except ValueError as error:
                    return f"has a {what} for {key!r}, {value!r}, that {error}"
            bounds.append((f"least {kind}", "largest", read(least), read(most)))
    for low, high, least, most in bounds:
        if least is not None and most is not None and least > most:
            return f"allows nothing for {key!r}: its {low} is above its {high}"
    alone = {name: each for name, each in rule.items() if name != "dependencies"}  # on other keys
    below, fields = _below(rule)
    for each in below:
        found = _contradicts(key, each)
        if found is not None:
            return found
    if default is not None and not Validator({key: alone}).validate({key: default}, normalize=False):
        return f"refuses its own default of {key!r}, {default!r}"
    return None if fields is None else _contradiction(fields)


def _below(rule: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """The rules within a rule, and the fields of the map that it describes."""
    rules = [rule[key] for key in ("valuesrules", "keysrules") if key in rule]
    rules += [each for key in ("items", "anyof", "allof", "oneof", "noneof") for each in rule.get(key, ())]
    schema = rule.get("schema")
    if schema is not None and "list" in rule.get("type", ()):
        return [*rules, schema], None
    return rules, schema


def _refused_in(fields: Mapping[Any, Any]) -> str | None:
    for rule in fields.values():
        found = _refused(rule)
        if found is not None:
            return found
    return None


def _refused(rule: Any) -> str | None:
    if not isinstance(rule, dict):
        raise TypeError(f"{rule!r} is no map of rules")
    own = next((key for key in _REFUSED if key in rule), None)
    if own is not None:
        return own
    below, fields = _below(rule)
    found = None if fields is None else _refused_in(fields)
    return found or next((each for each in map(_refused, below) if each is not None), None)


def guarded(schema: Any) -> Any:
    """The schema, with functions of ``check_with`` that report what they raise."""
    if isinstance(schema, dict):
        return {key: _safe(each) if key == "check_with" else guarded(each) for key, each in schema.items()}
    return [guarded(each) for each in schema] if isinstance(schema, list) else schema


def _safe(check: Any) -> Any:
    if not callable(check):
        return check

    def checked(field: Any, value: Any, error: Callable[[Any, str], object]) -> None:
        try:
            check(field, value, error)
        except BaseException as raised:
            error(field, f"could not be checked: {raised!r}")

    return checked


def made(schema: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that the schema has found good, with its defaults, with durations in seconds and sizes in bytes."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        out[key] = _value(schema.get(key, {}), value)
    for key, rule in schema.items():
        if key not in out and "default" in rule:
            out[key] = _value(rule, rule["default"])
        elif key not in out and rule.get("type") == "dict" and rule.get("schema") and not rule.get("required"):
            below = made(rule["schema"], {})
            if below:
                out[key] = below
    return out


def _value(rule: Mapping[str, Any], value: Any) -> Any:
    if value is None:
        return None
    for kind, read in _READ.items():
        if kind in rule:
            return read(value)
    if isinstance(value, dict):
        if "valuesrules" in rule:
            return {key: _value(rule["valuesrules"], each) for key, each in value.items()}
        return made(rule.get("schema") or {}, value)
    if isinstance(value, list):
        return [_value(rule.get("schema") or {}, each) for each in value]
    return value
