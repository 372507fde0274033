"""Validates a document by its schema, and writes a sentence for every problem, with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import cerberus
from cerberus import errors as codes

from apigw.config import units
from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.nearest import hint, meant
from apigw.config.rules import Form
from apigw.config.schema import is_secret, rule_at
from apigw.config.secrecy import masked_in_url

MAX_HINTS = 50

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_NO_SPACE = re.compile(r"[a-z_]+:[^/\s]+")

_VARIABLE = re.compile(r"(?<!\$)\$([A-Z_][A-Z0-9_]{0,60})")

_OTHERS = {
    **dict.fromkeys(("entrypoints", "http", "tcp", "udp", "certificatesresolvers", "routers"), "Traefik"),
    **dict.fromkeys(("middlewares", "middleware"), "Traefik"),
    **dict.fromkeys(("_format_version", "_transform", "consumers", "upstreams"), "Kong"),
    **dict.fromkeys(("static_resources", "dynamic_resources"), "Envoy"),
}
"""Keys at the top of other programs' configurations, in lower case."""

_LINES = str.maketrans("", "", "\t\r\n")

_TYPES = {
    "list": "a list",
    "dict": "a map",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


class Validator(cerberus.Validator):  # type: ignore[misc]  # cerberus has no types
    """Cerberus with our rules. What follows each docstring's colon is the schema of the rule's own argument."""

    types_mapping: ClassVar[dict[str, Any]] = {
        **cerberus.Validator.types_mapping,
        "integer": cerberus.TypeDefinition("integer", (int,), (bool,)),
    }

    @property
    def schema(self) -> Mapping[str, Any]:
        """Taken as it is. Cerberus would check it each time, which takes longer than to check a configuration; ours is
        checked by a test."""
        return self._taken

    @schema.setter
    def schema(self, schema: Mapping[str, Any]) -> None:
        self._taken = schema

    def _error(self, *args: Any) -> None:
        """Cerberus would sort all errors at each one more, and keep them in two trees: of thousands that takes minutes.
        They are sorted by their places later (``Document.in_order``)."""
        if len(args) == 1:
            self._errors.extend(args[0])
        else:
            super()._error(*args)

    def _validate_duration(self, bounds: list[str], field: Any, value: Any) -> None:
        """The rule's arguments are validated against this schema: {'type': 'list'}"""
        self._between(units.seconds, bounds, field, value)

    def _validate_size(self, bounds: list[str], field: Any, value: Any) -> None:
        """The rule's arguments are validated against this schema: {'type': 'list'}"""
        self._between(units.size, bounds, field, value)

    def _validate_share(self, bounds: list[str], field: Any, value: Any) -> None:
        """The rule's arguments are validated against this schema: {'type': 'list'}"""
        self._between(units.share, bounds, field, value)

    def _validate_form(self, form: str, field: Any, value: Any) -> None:
        """The rule's arguments are validated against this schema: {'type': 'string'}"""
        if isinstance(value, str):
            try:
                self._config["forms"][form](value)
            except ValueError as error:
                self._error(field, str(error))

    def _between(self, read: Callable[[object], float], bounds: list[str], field: Any, value: Any) -> None:
        if value is None:
            return
        try:
            number = read(value)
        except ValueError as error:
            self._error(field, str(error))
            return
        least, most = bounds
        if number < read(least):
            self._error(field, f"is less than {least}" if read(least) else "is less than 0")
        elif number > read(most):
            self._error(field, f"is more than {most}")


def validate(document: Document, forms: Mapping[str, Form]) -> None:
    """Add the schema's problems to the document, except those below a value that is known to be broken."""
    validator = Validator(document.schema, forms=forms)
    validator.validate(document.tree, normalize=False)
    unreadable = set(document.broken)
    hints = 0
    for error in _leaves(validator._errors):
        path: Path = error.document_path
        if any(path[:length] in unreadable for length in range(len(path) + 1)):
            continue
        if error.code == codes.MIN_LENGTH.code and isinstance(error.value, str):
            continue  # the rule is about lists; of a text its form says what is wrong
        if error.code == codes.UNKNOWN_FIELD.code:
            hints += 1
            near = _near(document, path) if hints <= MAX_HINTS else ""
            document.spoil(path, f"is an unknown key{near}", document.key(path))
        elif error.code == codes.REQUIRED_FIELD.code:
            held = path[:-1]
            document.spoil(path, "is missing", document.keys.get(held) or document.place(held))
        elif error.value is None:
            document.spoil(path, "has no value: give it one, or leave it out", document.key(path))
        else:
            document.spoil(path, _sentence(document, path, error))
    for path in _unprintable(document):
        document.spoil(path, "contains a control character")


def shown(document: Document, path: Path, value: object) -> str:
    """A value for use in a sentence: quoted, as written in the file, up to 60 characters, without secrets."""
    if is_secret(document.schema, path):
        return "the value"
    text = masked_in_url(document.written.get(path, value if isinstance(value, str) else str(value)))
    if "@" in text:
        text = re.sub(r"^[^@]*:.*@", "…@", text, flags=re.DOTALL)
    if len(text) > 60:
        text = text[:57] + "…"
    return "'" + "".join(map(_visible, text)) + "'"


def _visible(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode()


def _leaves(errors: Iterable[Any]) -> Iterator[Any]:
    for error in errors:
        if error.is_group_error:
            yield from _leaves(error.child_errors)
        else:
            yield error


def _near(document: Document, path: Path) -> str:
    """The hint for an unknown key."""
    rule = rule_at(document.schema, path[:-1]) or {}
    known = rule.get("schema", {})
    return (
        _meant(rule, path[-1])
        or _of_others(path)
        or _of_header_rules(rule, path)
        or _elsewhere(document, path)
        or hint(str(path[-1]), known if isinstance(known, dict) else ())
    )


def _elsewhere(document: Document, path: Path) -> str:
    """The hint for a key of services in a route, and the reverse, and for one that stands at the top.

    ``gateway`` and ``defaults`` have it for all.
    """
    if len(path) == 2 and path[0] in ("gateway", "defaults"):
        for whose in ("route", "service"):
            if path[1] in (rule_at(document.schema, ("defaults", whose)) or {}).get("schema", ()):
                return f": it is a key of {whose}s; for all of them: defaults: {{{whose}: {{{path[1]}: …}}}}"
        top = next((key for key in (path[1], f"{path[1]}s") if key in document.schema), None)
        return "" if top is None else f"; did you mean {top!r}, at the top?"
    owner = path[1] if path[0] == "defaults" and len(path) > 1 else path[0]
    other = {"routes": "services", "route": "services", "services": "routes", "service": "routes"}.get(str(owner))
    if len(path) != 3 or other is None:
        return ""
    rule = rule_at(document.schema, (other, 0 if other == "routes" else "")) or {}
    if path[2] in rule.get("schema", ()):
        return f"; it is a key of {other}"
    top = next((key for key in (path[2], f"{path[2]}s") if key in document.schema), None)
    return "" if top is None else f"; did you mean {top!r}, at the top?"


def _of_others(path: Path) -> str:
    """The hint for the top of another program's configuration."""
    other = _OTHERS.get(str(path[0]).lower()) if len(path) == 1 else None
    return "" if other is None else f": it is {other}'s; docs/howto/moving.md has its words and ours"


def _of_header_rules(rule: Mapping[str, Any], path: Path) -> str:
    """The hint for a header without set, add or remove, and for these where conditions are."""
    if rule.get("meta", {}).get("merge") == "names":
        return f"; did you mean set: {{{path[-1]}: …}}?"
    if len(path) > 3 and path[-3] == "headers" and path[-2] in ("set", "add", "remove"):
        return f": headers has conditions; did you mean request_headers: {{{path[-2]}: …}}?"
    return ""


def _meant(rule: Mapping[str, Any], written: object) -> str:
    meta, key = rule.get("meta", {}), str(written).lower()
    if key in meta.get("instead", ()):
        return f": {meta['instead'][key]}"
    other = meta.get("meant", {}).get(key)
    return "" if other is None else f"; did you mean {other}?"


def _sentence(document: Document, path: Path, error: Any) -> str:
    value = error.value
    quoted = shown(document, path, value)
    if error.code == codes.CUSTOM.code:
        variable = _VARIABLE.search(quoted)  # never in what is masked
        return f"{quoted} {error.info[0]}" + (f"; a variable is written ${{{variable[1]}}}" if variable else "")
    if error.code == codes.BAD_TYPE.code:
        return _type_sentence(document, path, value, error.constraint)
    if error.code == codes.UNALLOWED_VALUE.code:
        allowed = [str(each) for each in error.constraint]
        rule = rule_at(document.schema, path) or {}
        if value is False and rule.get("nullable"):
            return "must be true, or null for none"
        return f"{quoted} is not one of {', '.join(allowed)}{_meant(rule, value) or meant(str(value), allowed)}"
    if error.code == codes.MIN_VALUE.code:
        return f"{quoted} is less than {error.constraint}"
    if error.code == codes.MAX_VALUE.code:
        return f"{quoted} is more than {error.constraint}"
    if error.code == codes.MIN_LENGTH.code:
        return "is empty: it needs at least one entry"
    return f"{quoted} breaks the rule {error.rule!r}"


def _type_sentence(document: Document, path: Path, value: Any, wanted: str | list[str]) -> str:
    kinds = [wanted] if isinstance(wanted, str) else wanted
    names = " or ".join(_TYPES[kind] for kind in kinds)
    rule = rule_at(document.schema, path) or {}
    if isinstance(value, bool) and "allowed" in rule:
        read, allowed = "true" if value else "false", ", ".join(map(str, rule["allowed"]))
        return f"must be one of {allowed}, but YAML reads {shown(document, path, value)} as {read}"
    if value is False and rule.get("nullable"):
        return f"must be {names}, not false: write null for none"
    number = rule.get("meta", {}).get("number")
    if number is not None and type(value) is int:
        return f"must be {names}, not a number: write {number.format(value)}"
    if kinds == ["list"]:
        return f"must be a list, not {_as_list(rule, value)}"
    if kinds[0] in ("integer", "number") and isinstance(value, str) and re.fullmatch(r"-?[0-9.]+", value):
        return f"must be {names}: write it without quotes"
    if "integer" in kinds and isinstance(value, str) and re.fullmatch(r"[0-9]+%", value):
        return f"must be {names}: write {value[:-1]}"
    if "like" in rule.get("meta", {}) and not ("dict" in kinds and isinstance(value, dict)):
        return f"must be {names}, such as {rule['meta']['like']}"
    if isinstance(value, bool | int | float):
        if "string" not in kinds or "integer" in kinds:
            kind = "true or false" if isinstance(value, bool) else "a fraction" if "integer" in kinds else "a number"
            return f"must be {names}, not {kind}"
        read = ("true" if value else "false") if isinstance(value, bool) else "a number"
        return f"must be {names}, but YAML reads {shown(document, path, value)} as {read}: write it in quotes"
    if isinstance(value, str):
        if kinds == ["dict"] and _NO_SPACE.fullmatch(value):
            return f"must be {names}, not text: write a space after the colon"
        return f"must be {names}, not text"
    if isinstance(value, dict) and "list" in kinds and "dict" in rule.get("schema", {}).get("type", ()):
        return f"must be {names}, not a map: write it in brackets"
    if isinstance(value, dict) and list(value.values()) == [None]:
        return f"must be {names}, but YAML reads braces as a map: write it in quotes"
    if isinstance(value, list) and "valuesrules" in rule:
        return f"must be {names}, not a list: begin each entry with its name and a colon, without -"
    return f"must be {names}, not {'a list' if isinstance(value, list) else 'a map'}"


def _as_list(rule: Mapping[str, Any], value: object) -> str:
    """What is written where a list must be, and how to write it."""
    item: Mapping[str, Any] = rule.get("schema", {})
    if isinstance(value, str):
        return "text: write it in brackets" if "string" in item.get("type", ()) else "text"
    if isinstance(value, dict):
        return f"a map: begin each entry with - {next(iter(item['schema']))}: …" if "schema" in item else "a map"
    if isinstance(value, bool):
        return "true or false"
    number = item.get("meta", {}).get("number")
    return f"a number: write [{number.format(value)}]" if number is not None and type(value) is int else "a number"


def _unprintable(document: Document) -> list[Path]:
    """Text with control characters, but for secrets, which may be any bytes, and line ends where lines are wanted."""
    stack: list[tuple[Path, Any]] = [((), document.tree)]
    found: list[Path] = []
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            stack += [((*path, key), entry) for key, entry in value.items()]
        elif isinstance(value, list):
            stack += [((*path, index), entry) for index, entry in enumerate(value)]
        elif isinstance(value, str) and _CONTROL.search(value) and path not in document.troubled:
            rule = rule_at(document.schema, path) or {}
            if not rule.get("meta", {}).get("lines") or _CONTROL.search(value.translate(_LINES)):
                found.append(path)
    return [path for path in found if not is_secret(document.schema, path)]
