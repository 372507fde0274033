"""Checks of tracing in the configuration."""

from __future__ import annotations

from urllib.parse import urlsplit

from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.nearest import meant
from apigw.config.rules import Rules
from apigw.config.validate import shown
from apigw.ops.tracing.propagation import FORMATS
from apigw.policy.tracing.schema import KEYS
from apigw.wire.headers import FIELD_VALUE, TOKEN

_OURS = frozenset({b"host", b"content-length", b"content-type", b"transfer-encoding", b"connection"})


def trace_headers(text: str) -> None:
    if text not in FORMATS:
        raise ValueError(f"is not one of {', '.join(FORMATS)}{meant(text, FORMATS)}")


def collector_headers(content: bytes) -> list[tuple[bytes, bytes]]:
    """The headers that a file has, one in a line."""
    out = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or TOKEN(name.lower()) is None or FIELD_VALUE(value) is None:
            raise ValueError(f"has no header in line {number}: write it like X-Api-Key: …")
        if name.lower() in _OURS:
            raise ValueError(f"has in line {number} a header that the gateway writes itself")
        out.append((name, value))
    return out


def formats_twice(document: Document, files: Files) -> None:
    seen: set[object] = set()
    for at, name in document.entries("tracing", "propagate"):
        if name in seen:
            document.report(at, f"{shown(document, at, name)} is given twice")
        seen.add(name)


def collector(document: Document, files: Files) -> None:
    """Warns of the port where collectors listen for gRPC, to which nothing can be sent."""
    at = ("tracing", "otlp")
    url = document.get(*at)
    if isinstance(url, str) and urlsplit(url).port == 4317:
        document.warn(
            at, "port 4317 is usually that of OTLP over gRPC: OTLP over HTTP, which is spoken here, is on 4318"
        )


RULES = Rules(
    keys=KEYS,
    forms={"trace headers": trace_headers},
    called={"trace headers": "`w3c`, `b3`, or `b3_multi`"},
    contents={"collector headers": collector_headers},
    private=frozenset({"collector headers"}),
    checks=(formats_twice, collector),
)
