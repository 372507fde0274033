"""Whatever is in the files, the answer is a configuration or a list of problems with their places."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apigw.config.errors import ConfigError
from apigw.config.keys import may_be_list
from apigw.config.load import load
from apigw.config.merge import read
from apigw.config.show import show
from apigw.policy.auth.model import auth_of
from apigw.process.rules import RULES
from config.test_load import EXAMPLE

ROOT = RULES.schema
ENVIRON = {"A": "1", "B": "x: [", "C": "", "D": "\udcff", "E": "a\0b", "F": "\n"}

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# The example without the files that it names, so that a change which does no harm gets as far as the gateway.
GOOD = EXAMPLE
for line, replacement in (
    (next(line for line in EXAMPLE.split("\n") if "cert_file: tls/a.pem" in line), ""),
    (
        "      algorithm: RS256\n      public_key_file: keys/main.pem",
        f"      algorithm: HS256\n      secret: {'secretly' * 4}",
    ),
    ("algorithm: RS256, private_key_file: keys/token.pem", f"algorithm: HS256, secret: {'secretly' * 5}"),
):
    assert line in GOOD
    GOOD = GOOD.replace(line, replacement)


def check(*files: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for index, data in enumerate(files):
            (Path(directory) / f"{index}.yaml").write_bytes(data)
        try:
            load(directory, ENVIRON, RULES)
        except ConfigError as error:
            assert error.problems
            for problem in error.problems:
                assert problem.origin is not None
                line = str(problem)
                assert line.isprintable(), line
                text = (files[int(Path(problem.origin.file).stem)]).decode(errors="replace")
                assert 1 <= problem.origin.line <= text.count("\n") + text.count("\r") + text.count("\x85") + 3
        show(read(directory, ENVIRON, ROOT)).encode()


KEYS = sorted({*ROOT, *(key for rule in ROOT.values() for key in rule.get("schema", {})), "targets", "a"})
# fmt: off
WORDS = [
    *KEYS, "http://a", "tcp:80", "/a/:b", "GET", "30s", "1MiB", "on", "~", "010", "1:30", ".inf", "1e400", "${A}",
    "${B}", "${C}", "${D}", "${E}", "${F}", "${", "${Z:?no}", "$$", "&x", "*x", "!!int", "<<", "'", '"', "\\", "|",
    ">", "%", "@", "{", "}", "[", "]", ",", ":", ": ", "- ", "? ", "#", " ", "  ", "\n", "\n  ", "\n    ", "\t", "\0",
    "\x85", "é", "---\n",
]
# fmt: on


@QUICK
@given(st.lists(st.sampled_from(WORDS), max_size=40).map("".join), st.text(max_size=20))
def test_yaml_like_text(one: str, other: str) -> None:
    """A strange file ends in a traceback instead of a sentence."""
    check(one.encode(), other.encode(errors="replace"))


@QUICK
@given(st.binary(max_size=60))
def test_bytes(data: bytes) -> None:
    """A binary file ends in a traceback."""
    check(data)


def test_the_good_configuration_is_good() -> None:
    """The tests here never get past the checks."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "a.yaml").write_text(GOOD)
        assert auth_of(load(directory, {}, RULES)) is not None


@QUICK
@given(st.data())
def test_a_good_configuration_gone_bad(data: st.DataObject) -> None:
    """One slip in a good configuration ends in a traceback."""
    text = GOOD
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 12))
        text = text[:start] + data.draw(st.sampled_from(["", *WORDS])) + text[start + length :]
    check(text.encode())


VALUES = st.recursive(
    st.sampled_from([None, True, 0, -1, 10**17, 1.5, "", "a", "/a", "GET", "http://a", "tcp:1", "5s", "${A}", "\x7f"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(KEYS), below, max_size=3),
)


def _trees() -> st.SearchStrategy[object]:
    """Documents in which any value of the schema may have any form."""

    def of(rule: dict[str, Any]) -> st.SearchStrategy[object]:
        schema: dict[str, dict[str, Any]] = rule.get("schema", {})
        if "valuesrules" in rule:
            return VALUES | st.dictionaries(st.sampled_from(["a", "b c"]), of(rule["valuesrules"]), max_size=2)
        if may_be_list(rule):
            return VALUES | st.lists(of(schema), max_size=3)
        if schema:
            return VALUES | st.fixed_dictionaries({}, optional={key: of(below) for key, below in schema.items()})
        return VALUES

    return st.fixed_dictionaries({}, optional={key: of(rule) for key, rule in ROOT.items()})


@QUICK
@given(_trees())
def test_values_of_any_form_anywhere(tree: object) -> None:
    """A list where a number is wanted ends in a traceback."""
    check(json.dumps(tree).encode())
