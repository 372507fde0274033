"""docs/reference/configuration.md, generated from the schema (``make docs``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
from attrs import frozen

from apigw.config import units
from apigw.config.keys import Rule, attribute, may_be_list
from apigw.config.marks import MAX_DEPTH
from apigw.config.model import ALWAYS, Config
from apigw.config.rules import Rules

_FORMS = {
    "method": "HTTP method",
    "request path": "path, perhaps with a query",
    "printable": "printable ASCII",
    "name": "name",
    "file": "file",
    "network": "CIDR",
    "proxy": "CIDR or `unix:`",
    "target": "URL",
    "dns target": "URL",
    "srv target": "URL",
    "balance": "`round_robin`, `least_requests`",
    "hashed by": "`client`, `principal`",
    "token": "name",
    "redis url": "URL",
    "url": "URL",
    "origin": "origin",
    "host": "host name",
    "route host": "host name, address or wildcard",
    "host:port": "`host:port`",
    "endpoint": "endpoint string",
    "workers": "`auto`",
    "retried": "`idempotent`, `all` or HTTP method",
}
_TYPES = {
    "boolean": "`true` or `false`",
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "dict": "map",
}

_PREAMBLE = f"""\
# Configuration

This page is generated from the schema by `make docs`.

## Files

`twistd apigw --config DIR` reads `DIR/*.yaml` and `DIR/services/*.yaml` in the order of their names, and merges them:
maps are merged by key, lists are appended. Any other value that two files set is an error that names both places. A
service is written in one file: the entries of `services` are not merged. Files whose names begin with a dot are
ignored. An empty file, a file that ends in `.yml`, and YAML in other directories of `DIR` cause a warning.

Maps, lists and scalars are read. Other features of YAML are errors: anchors, aliases, merge keys (`<<`), tags, several
documents in a file, nesting deeper than {MAX_DEPTH}. A key that is given twice is an error too. Where YAML 1.1 reads
something surprising (`010`, `12:30:00`, `1_000`, or `on` where text must be), the error says what it reads.

Every problem of every file is reported at once, as `file:line:column: path: sentence`. `apigw check [DIR]` prints the
problems without starting the gateway. `apigw show [DIR]` prints the merged configuration with the place of each value,
secrets masked.

## Values

- **Durations** are `250ms`, `30s`, `1.5m`, `1h`. Only `0` may be written without a unit.
- **Sizes** are `512B`, `64KiB`, `10MiB`, `1GiB`, or a plain number of bytes.
- **Shares** are `20%` or `0.2`.
- **Files** are relative to DIR. They must exist and have the expected content; a certificate must fit its key.
- **Secrets**: instead of `secret`, `secret_file` may name a file. One newline at the end of the file is ignored.
- **Environment variables** are replaced in values, not in keys: `${{VAR}}` (an error if it is not set),
  `${{VAR:-default}}` (the default if it is not set or empty), `${{VAR:?message}}` (an error with that message if it is
  not set or empty). `$$` is a dollar sign; any other `$` stands for itself. The type of a value without quotes is
  decided afterwards: `${{PORT}}` may become a number, and an empty value is `null`. In quotes it is always text.
- **`null`** means none, where the table says so.

## Path patterns

A pattern begins with `/`. Its segments are literal, or `:name` (one segment), or at the end `*` (the rest). Literal
segments are compared after percent-decoding. A slash at the end counts: `/a/` does not match `/a`. Two routes
of the same shape (`/a/:b` and `/a/:c`) with a common method are an error.

Reserved are $RESERVED.
The gateway answers them before it looks at routes. A route that would match one of them is an error if its first
segment is literal. `/*` and `/:name` are allowed: they get all other paths.

Parameters in the style of other programs (`{{id}}`, `<id>`, `[id]`, `**`, regular expressions) are errors that say how
to write them here. To match such characters literally, percent-encode them: `/%7Bid%7D`.

## Endpoint strings

As in Twisted: `tcp:8080`, `tcp:8080:interface=127.0.0.1:backlog=1024`, `tcp6:8080:interface=\\:\\:1`,
`unix:/run/apigw.sock:mode=660`, `systemd:INET:name=http`, `ssl:8443:privateKey=a.key:certKey=a.pem`. A backslash
escapes `:`, `=` and `\\`. For TLS prefer `tcp:` with the listener's `tls`: its certificates are read again at a reload.
"""


def reference(rules: Rules) -> str:
    """The page, in Markdown."""
    schema, page = rules.schema, _Page({**_FORMS, **rules.called})
    top = [page.row(key, rule, Config) for key, rule in schema.items()]
    sections = (line for key, rule in schema.items() for line in page.sections(key, rule))
    preamble = _PREAMBLE.replace("$RESERVED", _reserved(rules))
    return "\n".join([preamble, "## Sections", "", *_HEAD, *top, "", *sections]).rstrip("\n") + "\n"


def _reserved(rules: Rules) -> str:
    said = [f"{_quoted(ALWAYS)} with all that is below them"]
    said += [f"{each.where} also {_quoted(each.paths)}" for each in rules.reserved]
    return ";\n".join(said)


def _quoted(texts: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in texts)


_HEAD = ("| key | type | default | meaning |", "|---|---|---|---|")


@frozen
class _Page:
    """``forms`` has what the page calls each form."""

    forms: Mapping[str, str]

    def sections(self, path: str, rule: Rule) -> Iterator[str]:
        """The tables of a rule's map and of all maps in it."""
        if "valuesrules" in rule:
            yield from self.sections(f"{path}.NAME", rule["valuesrules"])
        elif may_be_list(rule):
            yield from self.sections(f"{path}[]", rule["schema"])
        elif rule.get("meta", {}).get("shared"):
            return
        elif "schema" in rule:
            yield from (f"## `{path}`", "", *_HEAD)
            model = rule["meta"].get("model")
            yield from (self.row(key, below, model) for key, below in rule["schema"].items())
            yield ""
            for key, below in rule["schema"].items():
                yield from self.sections(f"{path}.{key}", below)

    def row(self, key: str, rule: Rule, model: Any) -> str:
        default = _default(key, rule, rule["meta"].get("owner", model))
        cells = (f"`{key}`", self._type(rule), default, rule["meta"]["doc"])
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    def _type(self, rule: Rule) -> str:
        null = ", or `null`" if rule.get("nullable") else ""
        if "duration" in rule:
            return "duration, {} to {}".format(*rule["duration"]) + null
        if "share" in rule:
            return "share, {} to {}".format(*rule["share"]) + null
        if "size" in rule:
            least, most = (units.size_text(units.size(bound)) for bound in rule["size"])
            return f"size, {least} to {most}{null}"
        if "allowed" in rule:
            return _quoted(str(each).lower() if each is True else each for each in rule["allowed"]) + null
        kind = rule["type"]
        if kind == "list":
            item = self._type(rule["schema"])
            return f"list of {'maps' if item == 'map' else item}{null}"
        if "form" in rule:
            form = self.forms.get(rule["form"], rule["form"])
            if not isinstance(kind, list):
                return form + null
            if "list" in kind:
                return f"{form}, or list of such{null}"
            return f"{form} or map{null}" if "dict" in kind else f"{rule['min']} to {rule['max']}, or {form}{null}"
        if "valuesrules" in rule:
            item = self._type(rule["valuesrules"])
            return f"map of {'maps' if item == 'map' else item}{null}"
        if isinstance(kind, list):
            return " or ".join("list of such" if each == "list" else _TYPES[each] for each in kind) + null
        bounds = f", {rule['min']} to {rule['max']}" if "min" in rule else ""
        return _TYPES[kind] + bounds + null


def _default(key: str, rule: Rule, model: Any) -> str:
    if "default" in rule["meta"]:
        return str(rule["meta"]["default"])
    if rule.get("required"):
        return "required"
    fields, key = attrs.fields_dict(model), attribute(key)
    if key not in fields or fields[key].default is attrs.NOTHING:
        return "none"
    return _shown(rule, fields[key].default)


def _shown(rule: Rule, value: Any) -> str:
    if value is None:
        return "none"
    if "duration" in rule:
        return f"`{units.duration_text(value)}`"
    if "size" in rule:
        return f"`{units.size_text(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if rule.get("type") == "dict" and value == ():
        return "`{}`"
    if isinstance(value, tuple):
        texts = [each.endpoint if attrs.has(type(each)) else str(each) for each in value]
        return f"`[{', '.join(texts)}]`"
    if attrs.has(type(value)):
        return "as below"
    return f"`{value}`"
