"""``apigw show``: the merged configuration as YAML, each value with its origin, secrets masked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import yaml

from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.problem import dotted
from apigw.config.schema import is_secret as is_declared_secret
from apigw.config.schema import rule_at
from apigw.config.secrecy import MASK, masked_in_url, tells_of_a_secret

_SECRET_KEY = re.compile(r"secret|passw|credential", re.IGNORECASE)
_FIELDS = ("set", "add", "headers", "query", "cookies", "with")
"""Maps of names in requests and answers, with their values, or with conditions on these; and the settings of
plugins."""
_SECRET_VARIABLE = re.compile(r"SECRET|TOKEN|PASSW|PWD|CREDENTIAL|PRIVATE|COOKIE|KEY|PASS(?:_|$)", re.IGNORECASE)
_FILE_KEY = re.compile(r"_file$")
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_RESOLVER: Any = yaml.resolver.Resolver()
_ESCAPED = re.compile(r"[\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff\u2028\u2029]")


def show(document: Document) -> str:
    """The document as valid YAML, with masks instead of secrets."""
    return "".join(line + "\n" for line in _map(document, document.tree, (), "")) or "{}\n"


def values(document: Document) -> Any:
    """The document as plain values, with masks instead of secrets, for JSON."""
    return _values(document, document.tree, ())


def places(document: Document) -> dict[str, str]:
    """The place of each value, by its path."""
    return {dotted(path): str(origin) for path, origin in document.places.items() if path}


def _values(document: Document, value: Any, path: Path) -> Any:
    if isinstance(value, dict) and value:
        return {key: _values(document, entry, (*path, key)) for key, entry in value.items()}
    if isinstance(value, list) and value:
        return [_values(document, entry, (*path, index)) for index, entry in enumerate(value)]
    if _masked(document, value, path):
        return MASK
    return masked_in_url(value) if isinstance(value, str) else value


def is_secret(document: Document, path: Path) -> bool:
    """Whether to mask a value: by the schema, by the name of its key, or by that of its environment variable.

    A value under a key that does not exist is masked too: it may be a secret, under a key that was mistyped.
    """
    if (
        rule_at(document.schema, path) is None
        or is_declared_secret(document.schema, path)
        or any(_SECRET_VARIABLE.search(name) for name in document.variables.get(path, ()))
    ):
        return True
    keys = [part for part in path if isinstance(part, str)]
    for fields, name in pairwise(keys):
        if fields in _FIELDS and tells_of_a_secret(name):
            return True
    return bool(keys) and bool(_SECRET_KEY.search(keys[-1])) and not _FILE_KEY.search(keys[-1])


def _map(document: Document, value: dict[str, Any], path: Path, indent: str) -> Iterator[str]:
    for key, entry in value.items():
        yield from _entry(document, entry, (*path, key), f"{indent}{_scalar(key)}:", indent + "  ")


def _entry(document: Document, value: Any, path: Path, head: str, indent: str) -> Iterator[str]:
    origin = f"  # {document.places[path]}"
    if isinstance(value, dict) and value:
        yield head + origin
        yield from _map(document, value, path, indent)
    elif isinstance(value, list) and value:
        yield head + origin
        for index, entry in enumerate(value):
            yield from _item(document, entry, (*path, index), indent)
    else:
        yield f"{head} {shown(document, value, path)}{origin}"


def _item(document: Document, value: Any, path: Path, indent: str) -> Iterator[str]:
    if not isinstance(value, dict | list) or not value:
        yield from _entry(document, value, path, f"{indent}-", indent)
        return
    if isinstance(value, list):
        yield f"{indent}-  # {document.places[path]}"
        for index, entry in enumerate(value):
            yield from _item(document, entry, (*path, index), indent + "  ")
        return
    first, *rest = _map(document, value, path, indent + "  ")
    yield f"{indent}- {first.removeprefix(indent + '  ')}"
    yield from rest


def shown(document: Document, value: Any, path: Path) -> str:
    """A scalar as YAML; a mask where it is a secret."""
    if _masked(document, value, path):
        return f'"{MASK}"'
    if isinstance(value, str):
        return _scalar(_dollars(masked_in_url(value)))
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, float):
        return repr(value) if "e" not in repr(value) else f"{value:f}"
    return json.dumps(value)


def _masked(document: Document, value: Any, path: Path) -> bool:
    if path in document.broken:
        return True
    return value is not None and not isinstance(value, bool) and is_secret(document, path)


def _dollars(text: str) -> str:
    """Doubled where one of them would begin something if it were read again."""
    return text.replace("$", "$$") if "$$" in text or "${" in text else text


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text) and _RESOLVER.resolve(yaml.ScalarNode, text, (True, False)).endswith(":str"):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)
