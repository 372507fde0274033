"""Which parts of a configuration a reload has changed, as the audit log says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from apigw.config.load import load
from apigw.process.handover import pack, unpack
from apigw.process.outline import FEW, Outline, outline_of
from apigw.process.pieces import at_once
from apigw.process.rules import RULES

SECRET = "0123456789abcdef0123456789abcdef"
BASE: dict[str, Any] = {
    "gateway": {"audit_log": {"file": "audit.log"}},
    "services": {"a": {"targets": ["http://127.0.0.1:1"]}, "b": {"targets": ["http://127.0.0.1:2"]}},
    "routes": [
        {"path": ["/a", "/a/*"], "service": "a", "auth": "none"},
        {"path": "/b", "service": "b", "auth": "none", "methods": ["GET"]},
        {"path": "/b", "service": "a", "auth": "none", "methods": ["PUT"]},
    ],
    "auth": {"jwt": [{"name": "corp", "algorithm": "HS256", "secret": SECRET}]},
}


def outline(directory: Path, **changes: Any) -> Outline:
    (directory / "gateway.yaml").write_text(json.dumps({**BASE, **changes}))
    config = load(str(directory), {}, RULES)
    made = outline_of(config)
    assert made is not None
    again = outline_of(at_once(unpack(pack(config).data)))
    assert again is not None and (again.digest, dict(again.parts)) == (made.digest, dict(made.parts))
    return made


@pytest.mark.parametrize(
    ("changes", "lines", "same"),
    [
        ({}, [], True),
        ({"services": dict(reversed(BASE["services"].items()))}, [], True),
        ({"gateway": {**BASE["gateway"], "drain_delay": "1s"}}, ["added: gateway.drain_delay"], False),
        ({"gateway": {**BASE["gateway"], "deny": ["10.0.0.0/8"]}}, ["added: gateway.deny"], False),
        ({"services": {**BASE["services"], "a": {"targets": ["http://127.0.0.1:3"]}}}, ["changed: services.a"], False),
        ({"routes": BASE["routes"][:2]}, ["removed: routes./b #2"], False),
        ({"routes": [{**BASE["routes"][0], "timeout": "1s"}, *BASE["routes"][1:]]},
         ["changed: routes./a", "changed: routes./a /a/*"], False),
        ({"checks": {"opa": {"url": "http://127.0.0.1/"}}}, ["added: checks"], False),
        ({"auth": {"jwt": [{**BASE["auth"]["jwt"][0], "leeway": "1s"}]}}, ["changed: auth"], False),
        ({"auth": {"jwt": [{**BASE["auth"]["jwt"][0], "secret": SECRET[::-1]}]}}, ["changed: auth"], True),
    ],
)  # fmt: skip
def test_what_has_changed(tmp_path: Path, changes: dict[str, Any], lines: list[str], same: bool) -> None:
    """Names, and no values. The digest knows no secret, and not the order of what has none."""
    before, after = outline(tmp_path), outline(tmp_path, **changes)
    assert before.changed_to(after) == lines
    assert (before.digest == after.digest) is same and after.digest.startswith("sha256:")


def test_many_routes_have_one_for_the_audit_log_only(tmp_path: Path) -> None:
    """Without it a start with thousands of routes does not wait."""
    (tmp_path / "gateway.yaml").write_text(json.dumps({**BASE, "gateway": {"listen": ["tcp:0"], "admin": None}}))
    config = load(str(tmp_path), {}, RULES)
    assert outline_of(config) is not None
    assert outline_of(evolve(config, routes=config.routes[:1] * (FEW + 1))) is None
