"""Plugins that cannot be used are problems of the configuration, each with its place."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

import pytest
from twisted.internet.selectreactor import SelectReactor

from apigw.config.errors import ConfigError
from apigw.config.load import load
from apigw.config.merge import read
from apigw.config.show import show
from apigw.process.rules import RULES
from apigw.process.trial import try_out

YAML = """\
services: {{main: {{targets: ["http://127.0.0.1:1"]}}}}
routes:
  - {{path: /*, service: main, use: {use}}}
plugins:
  p:
    policy: {policy}
    with: {with_}
"""
GOOD = """
class Good:
    name = "good"
    schema = {"a": {"type": "string", "required": True}, "secret": {"type": "string", "meta": {"secret": True}},
              "wait": {"duration": ["1ms", "1m"], "default": "5s"}}
    def on_request(self, view): pass
"""


def problems(directory: Path, code: str, policy: str = "./p.py:Good", with_: str = "{a: b}", use: str = "[p]") -> str:
    """What ``check`` says, without the directory."""
    (directory / "p.py").write_text(dedent(code))
    (directory / "gateway.yaml").write_text(YAML.format(policy=policy, with_=with_, use=use))
    try:
        config = load(str(directory), os.environ, RULES)
        try_out(config, str(directory), SelectReactor())
    except ConfigError as error:
        return str(error).replace(f"{directory}{os.sep}", "")
    return ""


MISTAKES = {
    "no file": (
        GOOD,
        {"policy": "./q.py:Good"},
        "gateway.yaml:6:13: plugins.p.policy: './q.py:Good' cannot be",
    ),
    "no class": (GOOD, {"policy": "./p.py:God"}, "gateway.yaml:6:13: plugins.p.policy: './p.py:God' has no God in "),
    "not a class": (GOOD + "x = 1", {"policy": "./p.py:x"}, "is no class, but int"),
    "no module": (GOOD, {"policy": "nowhere.at.all:Good"}, "cannot be imported: there is no module nowhere"),
    "no entry point": (GOOD, {"policy": "nothing"}, "'nothing' is no entry point of the group apigw.plugins"),
    "nothing": (GOOD, {"policy": '""'}, "is neither module:Class, nor ./file.py:Class"),
    "syntax": ("class Good\n", {}, "cannot be imported: p.py:1: SyntaxError"),
    "an error at import": ("import json\njson.loads('x')\n", {}, "JSONDecodeError: Expecting value"),
    "an exit at import": ("import sys\nsys.exit(3)\n", {}, "cannot be imported: p.py:2: SystemExit: 3"),
    "no name": ("class Good:\n    schema = {}\n    def on_request(self, view): pass\n", {}, "has no attribute name"),
    "no schema": ("class Good:\n    name = 'g'\n    def on_request(self, view): pass\n", {}, "has no attribute schema"),
    "no method": ("class Good:\n    name = 'g'\n    schema = {}\n", {}, "has no method that the gateway would call"),
    "a method mistyped": (
        GOOD + "    def on_anser(self, view): pass\n",
        {},
        "which the gateway never calls; did you",
    ),
    "a hook without the view": (
        GOOD + "    def on_answer(self): pass\n",
        {},
        "has on_answer, which cannot be called with what it gets: write def on_answer(self, view)",
    ),
    "pieces without their end": (
        GOOD + "    async def on_answer_body(self, view, data): pass\n",
        {},
        "write def on_answer_body(self, view, data, last)",
    ),
    "an async hook": (
        GOOD + "    async def on_answer(self, view): pass\n",
        {},
        "an async on_answer, which cannot",
    ),
    "a position": (GOOD + "    position = 'first'\n", {}, "has the position 'first', which is not one of access, "),
    "no dict": (GOOD.replace("schema = {", "schema = 1 or {"), {}, "has a schema that is no dict, but int"),
    "no rule": (GOOD.replace('"required"', '"requird"'), {}, "has a schema that is not a valid Cerberus schema"),
    "a rule that is not supported": (
        GOOD.replace('"required": True', '"coerce": str'),
        {},
        "the rule 'coerce'",
    ),
    "a default that breaks it": (
        GOOD.replace('"5s"', '"5"'),
        {},
        "has a schema that has a default for 'wait', '5', that has no unit: write 5s",
    ),
    "a bound that is none": (
        GOOD.replace('"1m"]', '"1x"]'),
        {},
        "has a schema that has a bound for 'wait', '1x', that is not a duration: write it like 250ms, 30s, 5m or 1h",
    ),
    "a bound that is none, of what is in a list": (
        GOOD.replace('"wait": {', '"waits": {"type": "list", "schema": {"size": ["1", "x"]}}, "wait": {'),
        {},
        "has a schema that has a bound for 'waits', 'x', that is not a size",
    ),
    "one bound": (
        GOOD.replace('["1ms", "1m"]', '["1ms"]'),
        {},
        "has a schema that has no two bounds for 'wait': write 'duration': [LEAST, MOST]",
    ),
    "a default beyond the bounds": (GOOD.replace('"default": "5s"', '"default": "5h"'), {}, "default of 'wait', '5h'"),
    "bounds in the wrong order": (
        GOOD.replace('["1ms", "1m"]', '["1m", "1ms"]'),
        {},
        "has a schema that allows nothing for 'wait': its least duration is above its largest",
    ),
    "a minimum above the maximum": (
        GOOD.replace('"required": True', '"minlength": 3, "maxlength": 2'),
        {},
        "allows nothing for 'a': its minlength is above its maxlength",
    ),
    "an expression that is none": (
        GOOD.replace('"required": True', '"regex": "("'),
        {},
        "is not a valid Cerberus schema",
    ),
    "a contradiction further down": (
        GOOD.replace(
            '"wait": {', '"deep": {"type": "dict", "schema": {"b": {"type": "integer", "default": "x"}}}, "wait": {'
        ),
        {},
        "refuses its own default of 'b', 'x'",
    ),
    "a check that exits": (
        GOOD.replace('"required": True', '"check_with": lambda field, value, error: exit(0)'),
        {},
        "plugins.p.with.a: 'b' could not be checked: SystemExit(0)",
    ),
    "a text that exits": (
        GOOD + "    def prepare(self, config, context): raise Odd\nclass Odd(ValueError):\n"
        "    def __str__(self): exit(0)\n",
        {},
        "gateway.yaml:7:11: plugins.p.with: (its text cannot be read: SystemExit)",
    ),
    "a class that exits": (
        "class Meta(type):\n    def __getattribute__(self, name): exit(0)\nclass Good(metaclass=Meta): pass\n",
        {},
        "cannot be looked at: SystemExit: 0",
    ),
    "a header that only the gateway sets": (
        GOOD + "    own_headers = ('X_User-ID',)\n",
        {},
        "own_headers has x_user-id: x_user-id says who calls",
    ),
    "a key": (GOOD, {"with_": "{a: b, c: d}"}, "gateway.yaml:7:18: plugins.p.with.c: is an unknown key"),
    "a value": (
        GOOD,
        {"with_": "{a: 1}"},
        "gateway.yaml:7:15: plugins.p.with.a: must be text, but YAML",
    ),
    "a duration": (GOOD, {"with_": "{a: b, wait: 2h}"}, "plugins.p.with.wait: '2h' is more than 1m"),
    "a missing key": (GOOD, {"with_": "{}"}, "plugins.p.with.a: is missing"),
    "no such plugin": (GOOD, {"use": "[q]"}, "gateway.yaml:3:37: routes[0].use[0]: 'q' is not among plugins"),
    "twice": (GOOD, {"use": "[p, p]"}, "routes[0].use[1]: 'p' is given twice"),
    "prepare refuses": (
        GOOD + "    def prepare(self, config, context): raise ValueError('not on Sundays')\n",
        {},
        "gateway.yaml:7:11: plugins.p.with: not on Sundays",
    ),
    "prepare fails": (
        GOOD + "    def prepare(self, config, context): config['zzz']\n",
        {},
        "gateway.yaml:6:13: plugins.p.policy: './p.py:Good' failed in prepare: KeyError: 'zzz'",
    ),
    "a header of its own that is none": (
        GOOD + "    own_headers = ('a b',)\n",
        {},
        "own_headers has 'a b'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_has_its_place(tmp_path: Path, mistake: str) -> None:
    """File, line and column of the YAML, or where its value is."""
    code, more, said = MISTAKES[mistake]
    found = problems(tmp_path, code, **more)
    assert said in found.replace(f"{tmp_path}{os.sep}", ""), found
    assert found.startswith("gateway.yaml:")


def test_a_name_that_two_packages_offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is taken: both are named, and what to write."""
    for package in ("first", "second"):
        folder = tmp_path / f"{package}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (folder / "entry_points.txt").write_text(f"[apigw.plugins]\nstamp = {package}:Stamp\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = problems(tmp_path, GOOD, policy="stamp")
    assert found == "gateway.yaml:6:13: plugins.p.policy: 'stamp' is offered by first and second: write module:Class"


@pytest.mark.parametrize(("second", "metric"), [("p_a", "b"), ("log", "lines_lost"), ("q", "b")])
def test_a_metric_has_one_owner(tmp_path: Path, second: str, metric: str) -> None:
    """Two plugins whose metrics would have the same name cannot be used together; nor one of the gateway's own."""
    code = GOOD + "    def prepare(self, config, context): context.counter(config['a'], 'Of it.')\n"
    more = f"{{a: a_b}}\n  {second}:\n    policy: ./p.py:Good\n    with: {{a: {metric}}}"
    found = problems(tmp_path, code, with_=more)
    shown = f"gateway_plugin_{second}_{metric}"
    assert found == (
        "" if second == "q" else f"gateway.yaml:9:5: plugins.{second}: has the metric {shown}, which exists already"
    )


def test_a_good_one_has_no_problem(tmp_path: Path) -> None:
    """Its settings have defaults and units, and its secrets are masked; also what only its name tells to be one."""
    more = GOOD.replace("schema = {", 'schema = {"api_token": {"type": "string"}, ')
    assert problems(tmp_path, more, with_="{a: b, secret: hunter2, api_token: hunter2}") == ""
    document = read(str(tmp_path), {}, RULES.schema)
    for learn in RULES.learns:
        learn(document, None)  # type: ignore[arg-type]  # it reads no file of the configuration
    assert "hunter2" not in show(document)
    assert "a: b" in show(document)


def test_a_default_may_be_of_a_key_that_depends_on_another(tmp_path: Path) -> None:
    """Who gives neither has the default, and who gives this one must give the other."""
    code = GOOD.replace('"default": "5s"', '"default": "5s", "dependencies": ["secret"]')
    assert problems(tmp_path, code) == ""
    found = problems(tmp_path, code, with_="{a: b, wait: 2s}")
    assert found.endswith("'2s' breaks the rule 'dependencies'"), found


DECORATED = """
from functools import wraps

def with_session(method):
    @wraps(method)
    def called(self, view):
        return method(self, view, "a session")
    return called

"""


def test_a_decorator_may_add_arguments(tmp_path: Path) -> None:
    """What is called is what it returns, not what it wraps."""
    code = DECORATED + GOOD + "    @with_session\n    def on_answer(self, view, session): pass\n"
    assert problems(tmp_path, code) == ""


def test_headers_of_two_plugins(tmp_path: Path) -> None:
    """Only one may have a header for itself, in whatever spelling."""
    (tmp_path / "p.py").write_text(
        GOOD + "    own_headers = ('X-Own',)\nclass Other(Good):\n    own_headers = ('x_own',)\n"
    )
    (tmp_path / "gateway.yaml").write_text(
        YAML.format(policy="./p.py:Good", with_="{a: b}", use="[p, q]")
        + "  q: {policy: './p.py:Other', with: {a: b}}\n"
    )
    config = load(str(tmp_path), os.environ, RULES)
    with pytest.raises(ConfigError, match="has x_own among its own_headers, as the plugin p has"):
        try_out(config, str(tmp_path), SelectReactor())
