"""The reference says what the schema says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from apigw.config.keys import Keys, Rule, attribute, may_be_list, secret, switch
from apigw.config.model import Config
from apigw.config.reference import reference
from apigw.config.schema import compose, is_secret, rule_at
from apigw.process.rules import RULES

ROOT = RULES.schema
CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs/reference/configuration.md"


def test_the_page_is_the_schemas() -> None:
    """A key exists and is not documented, or is documented with another default. Write the page with
    `make docs`."""
    assert PAGE.read_text() == reference(RULES)


def rules(schema: Rule, model: Any, path: str = "") -> Iterator[tuple[str, Rule, Any]]:
    """Each key's path, rule, and the class that it belongs to."""
    for key, rule in schema.items():
        if key == "defaults":  # has the keys of routes and services
            continue
        yield f"{path}{key}", rule, rule["meta"].get("owner", model)
        below, at = rule, f"{path}{key}."
        while "valuesrules" in below or may_be_list(below):
            below = below.get("valuesrules") or below["schema"]
        if "schema" in below:
            yield from rules(below["schema"], below["meta"]["model"], at)


@pytest.mark.parametrize(("path", "rule", "model"), [pytest.param(*case, id=case[0]) for case in rules(ROOT, Config)])
def test_every_key_has_a_place_in_the_model(path: str, rule: Rule, model: Any) -> None:
    """A key is accepted, and nothing becomes of it; or it may be left out, and then the gateway does not start."""
    key = path.rsplit(".", 1)[-1]
    assert rule["meta"]["doc"].endswith((".", "?")), "a sentence"
    fields = attrs.fields_dict(model)
    if (key in ("url", "dns", "srv") and "host" in fields) or key.endswith("secret_file"):
        return
    if key in ("header", "cookie") and "by" in fields:
        return
    key = attribute(key)
    assert key in fields
    if not rule.get("required"):
        assert fields[key].default is not attrs.NOTHING


def test_the_model_has_no_more_than_the_schema() -> None:
    """The model has a setting that nobody can set."""
    seen: dict[Any, set[str]] = {}
    for path, _, model in rules(ROOT, Config):
        seen.setdefault(model, set()).add(path.rsplit(".", 1)[-1])
    derived = {
        "name",
        "scheme",
        "host",
        "port",
        "lookup",
        "called",
        "by",
        "algorithm",
        "added",
        "reserved",
        "files",
        "origins",
        "warnings",
        "place",
        "code",
        "directory",
    }
    for model, keys in seen.items():
        assert {name.rstrip("_") for name in attrs.fields_dict(model) if name not in derived} <= keys, model


def test_config_knows_no_key_of_a_policy() -> None:
    """A policy that is added or taken away changes its own folder, and no module of config."""
    keys = {key for each in RULES.keys for key in each.rules}
    for file in sorted((CHECKOUT / "apigw/config").glob("*.py")):
        texts = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
        assert not keys & texts, file


def test_rules_are_found_by_path() -> None:
    """A mistyped key is compared with the names of another map."""
    assert (
        rule_at(ROOT, ("services", "a", "targets", 0, "weight"))
        == ROOT["services"]["valuesrules"]["schema"]["targets"]["schema"]["schema"]["weight"]
    )
    assert rule_at(ROOT, ("services", "a", "wieght")) is None
    assert rule_at(ROOT, ("routes", "type")) is None


@attrs.frozen
class Added:
    dial: bool = True
    pin: str | None = None


ADDED = {"dial": switch("Whether it turns."), "pin": secret("What opens it.")}


@pytest.mark.parametrize(
    ("at", "path"),
    [
        ((), ()),
        (("gateway",), ("gateway",)),
        (("services",), ("services", "a")),
        (("routes",), ("routes", 3)),
        (("auth",), ("auth",)),
    ],
)
def test_a_policy_adds_keys_to_any_map(at: tuple[str, ...], path: tuple[str | int, ...]) -> None:
    """A key that a policy adds stands in the whole schema at its place, with its class and its secrecy."""
    schema = compose((*RULES.keys, Keys(at, Added, ADDED)))
    rule = rule_at(schema, (*path, "dial"))
    assert rule is not None and rule["meta"]["owner"] is Added
    assert is_secret(schema, (*path, "pin")) and not is_secret(schema, (*path, "dial"))
    assert rule_at(ROOT, (*path, "dial")) is None


def test_a_key_belongs_to_one_policy() -> None:
    """Two policies with a key of the same name in the same map are refused where they are put together."""
    with pytest.raises(ValueError, match="dial"):
        compose((Keys(("routes",), Added, ADDED), Keys(("routes",), Added, ADDED)))
