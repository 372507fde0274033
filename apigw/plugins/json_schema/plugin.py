"""Validates bodies of requests by a JSON Schema (docs/reference/json-schema.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from apigw.plugin import Busy, Context, Malformed, Refusal, View, strict_json
from apigw.plugins.json_schema.ways import ways_of

MOST_PROBLEMS = 10
"""Problems that an answer names."""
ALL_NAMED = 500
"""Values in a body, times the ways in which the schema has each tried, of which all problems are looked for, and not
only the first: each takes 15 to 50 µs, as measured, and other requests wait meanwhile."""
IN_THREAD = 32 * 1024
"""Bytes from which a body is checked in a thread: to parse so much takes a millisecond."""
AT_A_TIME = 8 * 1024 * 1024
"""Bytes of bodies that threads check, or have still to check: those take a third of a second, as measured. One more is
refused, as it would wait for longer than the plugin's ``timeout``, and that would count as a failure of the plugin."""
LATEST = 0.75
"""Of the plugin's ``timeout``: then a check has taken too long, and the request is refused."""
NEED_NONE = frozenset({"GET", "HEAD", "OPTIONS", "DELETE", "TRACE"})
"""Methods whose requests may have no body."""

_OF_JSON = frozenset({"utf-8", "utf8", "us-ascii"})

Problem = tuple[str, str]
"""A JSON Pointer to a value, and what is wrong with it."""


class JSONSchema:
    name: ClassVar = "json_schema"
    changes_body: ClassVar = False
    schema: ClassVar[dict[str, Any]] = {
        "file": {"type": "string", "minlength": 1, "excludes": "schema", "meta": {"doc": "The schema, in JSON."}},
        "schema": {"type": "dict", "excludes": "file", "meta": {"doc": "Or the schema itself."}},
        "size": {"size": ["1", "16MiB"], "default": 1024 * 1024, "meta": {"doc": "Of a body."}},
        "depth": {"type": "integer", "min": 1, "max": 200, "default": 64, "meta": {"doc": "Of what is nested in it."}},
        "fractions": {
            "type": "integer",
            "min": 0,
            "max": 1_000_000,
            "default": 1000,
            "meta": {"doc": "Numbers in a body that are no integers of 64 bits."},
        },
        "formats": {"type": "boolean", "default": True, "meta": {"doc": "Whether `format` is checked."}},
    }

    def prepare(self, config: dict[str, Any], context: Context) -> None:
        try:
            import jsonschema_rs
        except ImportError:
            raise ValueError("needs the package jsonschema-rs: pip install 'apigw[json-schema]'") from None
        self.threads = context.threads(AT_A_TIME, LATEST * context.timeout)
        self.size, self.depth, self.fractions = config["size"], config["depth"], config["fractions"]
        document = config.get("schema")
        if document is None:
            if "file" not in config:
                raise ValueError("needs file or schema")
            document = _read(Path(context.directory, config["file"]))
        try:
            # Expressions take a time that grows with the text alone, references lead to no other document, and what is
            # told of a value does not show it.
            linear, formats = jsonschema_rs.RegexOptions(), config["formats"]
            self.validator = jsonschema_rs.validator_for(
                document, validate_formats=formats, pattern_options=linear, offline=True, mask="the value"
            )
        except ValueError as error:
            raise ValueError(f"its schema cannot be used: {str(error).splitlines()[0]}") from None
        self.ways = ways_of(document)

    async def on_request(self, view: View) -> None:
        body = await view.read_body(self.size)
        if not body and view.method in NEED_NONE:
            return
        _check_type(view)
        try:
            if len(body) < IN_THREAD:
                problems = self.problems(body)
            else:
                problems = await self.threads.run(len(body), self.problems, body)
        except Malformed as error:
            raise Refusal(400, str(error), "malformed_body") from None
        except Busy:
            raise Refusal(503, "It takes too long to check the body.", "overloaded", {"Retry-After": "1"}) from None
        if problems:
            errors = [{"pointer": pointer, "detail": detail} for pointer, detail in problems]
            detail = f"The body is not valid: {problems[0][0]}: {problems[0][1]}"
            raise Refusal(422, detail, "invalid_body", members={"errors": errors})

    def problems(self, body: bytes) -> list[Problem]:
        """What is wrong with the body. Raises ``Malformed``. Runs in any thread."""
        value = strict_json(body, self.depth, self.fractions)
        if self.validator.is_valid(value):
            return []
        found: list[Any] = []
        most_values = 1 + body.count(b",") + body.count(b"[") + body.count(b"{")
        if most_values * self.ways <= ALL_NAMED:
            found += self.validator.iter_errors(value)
        elif self.ways > 1:
            # The first problem may be one of all ways of all values: it has each of them within.
            return [("#", "the value is not valid, and too large to say where")]
        else:
            try:
                self.validator.validate(value)
            except ValueError as error:
                found.append(error)
        return [(_pointer(error.instance_path), error.message[:500]) for error in found[:MOST_PROBLEMS]]


def _check_type(view: View) -> None:
    """Only what is checked may pass: nothing that a service would read in another way."""
    media_type = view.request.media_type
    if not media_type.is_json:
        raise Refusal(415, "The body must be JSON.", "unsupported_media_type", {"Accept": "application/json"})
    if not media_type.charsets <= _OF_JSON:
        # JSON has none (RFC 8259 §11), but some services believe it, and read another text than was checked.
        raise Refusal(415, "The body must be JSON in UTF-8, and say no other charset.", "unsupported_media_type")
    if any(each.strip().lower() != "identity" for each in view.request.all("Content-Encoding")):
        detail = "The body must not be compressed."
        raise Refusal(415, detail, "unsupported_media_type", {"Accept-Encoding": "identity"})


def _pointer(path: list[str | int]) -> str:
    """As a fragment (RFC 6901 §6), at most 500 characters."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "#" + "".join("/" + quote(step, safe="~!$&'()*+,;=:@", errors="surrogatepass") for step in steps)[:500]


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise ValueError(f"file: {file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"file: {file} is not JSON") from None
