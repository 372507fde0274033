"""Validates bodies of requests by a JSON Schema (docs/reference/json-schema.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from apigw.plugin import Answer, Context, Refusal, View
from apigw.plugins.json_schema.strict import Malformed, parsed

MOST_PROBLEMS = 10
"""Problems that an answer names."""
ALL_NAMED = 4 * 1024
"""Bytes of a body whose problems are all looked for, and not only the first: each takes 10 µs, as measured, and 4 KiB
can have 2,000."""
IN_THREAD = 32 * 1024
"""Bytes from which a body is checked in a thread: to parse so much takes a millisecond."""
NEED_NONE = frozenset({"GET", "HEAD", "OPTIONS", "DELETE", "TRACE"})
"""Methods whose requests may have no body."""

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
        "formats": {"type": "boolean", "default": True, "meta": {"doc": "Whether `format` is checked."}},
    }

    def prepare(self, config: dict[str, Any], context: Context) -> None:
        try:
            import jsonschema_rs
        except ImportError:
            raise ValueError("needs the package jsonschema-rs: pip install 'apigw[json-schema]'") from None
        self.context = context
        self.size, self.depth = config["size"], config["depth"]
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

    async def on_request(self, view: View) -> Answer | None:
        body = await view.read_body(self.size)
        if not body and view.method in NEED_NONE:
            return None
        _check_type(view)
        try:
            if len(body) < IN_THREAD:
                problems = self.problems(body)
            else:
                problems = await self.context.in_thread(self.problems, body)
        except Malformed as error:
            raise Refusal(400, str(error), "malformed_body") from None
        return _invalid(view, problems) if problems else None

    def problems(self, body: bytes) -> list[Problem]:
        """What is wrong with the body. Raises ``Malformed``. Runs in any thread."""
        value = parsed(body, self.depth)
        if self.validator.is_valid(value):
            return []
        found: list[Any] = []
        if len(body) <= ALL_NAMED:
            found += self.validator.iter_errors(value)
        else:
            try:
                self.validator.validate(value)
            except ValueError as error:
                found.append(error)
        return [(_pointer(error.instance_path), error.message[:500]) for error in found[:MOST_PROBLEMS]]


def _check_type(view: View) -> None:
    """Only what is checked may pass: nothing that a service would read in another way."""
    kind = (view.request.get("Content-Type") or "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refusal(415, "The body must be JSON.", "unsupported_media_type", {"Accept": "application/json"})
    if (view.request.get("Content-Encoding") or "identity").strip().lower() != "identity":
        detail = "The body must not be compressed."
        raise Refusal(415, detail, "unsupported_media_type", {"Accept-Encoding": "identity"})


def _invalid(view: View, problems: list[Problem]) -> Answer:
    document = {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "code": "invalid_body",
        "detail": f"The body is not valid: {problems[0][0]}: {problems[0][1]}",
        "errors": [{"pointer": pointer, "detail": detail} for pointer, detail in problems],
        "request_id": view.id,
    }
    return view.respond(422, {"Content-Type": "application/problem+json"}, json.dumps(document))


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
