"""Warnings of retries that can never be made."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from apigw.config.load import load
from apigw.config.model import Retry
from apigw.process.rules import RULES

Write = Callable[[Mapping[str, str | bytes]], str]

GOOD = """
services:
  a: {targets: ["http://a"], retry: {}}
  b: {targets: ["http://b"], timeout: 3s, retry: {on: [connect, 503], tries: 3, per_try_timeout: 2s, methods: [PUT]}}
  c: {targets: ["http://c"], protocol: grpc, retry: {methods: all}}
routes: [{path: /b, service: b}, {path: /c, service: b, timeout: 5s}]
"""


def test_what_is_written(write: Write) -> None:
    """The key ``on`` is read as text, what is left out has its default, and nothing is warned of."""
    config = load(write({"a.yaml": GOOD}), {}, RULES)
    assert [service.retry for service in config.services] == [
        Retry(("connect", "reset", 502, 503, 504), 2, None, ("idempotent",), 0.2),
        Retry(("connect", 503), 3, 2.0, ("PUT",), 0.2),
        Retry(methods=("all",)),
    ]
    assert not [warning for warning in config.warnings if "retr" in str(warning)]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "services: {a: {targets: ['http://a'], timeout: 2s, retry: {per_try_timeout: 2s}}}",
            "per_try_timeout: has no effect: it is not less than the timeout, 2s",
        ),
        (
            "services: {a: {targets: ['http://a'], retry: {per_try_timeout: 40s}}}",
            "per_try_timeout: has no effect: it is not less than the timeout, 30s",
        ),
        (
            "services: {a: {targets: ['http://a'], retry: {per_try_timeout: 2s}}}\n"
            "routes: [{path: /a, service: a, timeout: 1s}]",
            "routes[0].timeout: leaves no time for a retry: the per_try_timeout of its service is 2s",
        ),
        (
            "services: {a: {targets: ['http://a'], protocol: grpc, retry: {}}}",
            "retry: repeats no call of gRPC that was sent, as they are POST: write methods: all",
        ),
    ],
    ids=["service", "gateway", "route", "gRPC"],
)
def test_warnings(write: Write, text: str, warning: str) -> None:
    """What has no effect is said so."""
    said = load(write({"a.yaml": text}), {}, RULES).warnings
    assert any(str(each).endswith(warning) for each in said), said
