"""The reference says what the schema says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from apigw.config.model import Config
from apigw.config.reference import reference
from apigw.config.schema import ROOT, Rule
from apigw.config.validate import rule_at

PAGE = Path(__file__).parents[2] / "docs/reference/configuration.md"


def test_the_page_is_the_schemas() -> None:
    """A key exists and is not documented, or is documented with another default. Write the page with `python -m
    apigw.config.reference > docs/reference/configuration.md`."""
    assert PAGE.read_text() == reference()


def rules(schema: Rule, model: Any, path: str = "") -> Iterator[tuple[str, Rule, Any]]:
    """Each key's path, rule, and the class that it belongs to."""
    for key, rule in schema.items():
        yield f"{path}{key}", rule, model
        below, at = rule, f"{path}{key}."
        while "valuesrules" in below or below.get("type") == "list":
            below = below.get("valuesrules") or below["schema"]
        if "schema" in below:
            yield from rules(below["schema"], below["meta"]["model"], at)


@pytest.mark.parametrize(("path", "rule", "model"), [pytest.param(*case, id=case[0]) for case in rules(ROOT, Config)])
def test_every_key_has_a_place_in_the_model(path: str, rule: Rule, model: Any) -> None:
    """A key is accepted, and nothing becomes of it; or it may be left out, and then the gateway does not start."""
    key = path.rsplit(".", 1)[-1]
    assert rule["meta"]["doc"].endswith((".", "?")), "a sentence"
    fields = attrs.fields_dict(model)
    if (key in ("url", "weight") and "host" in fields) or key == "secret_file":
        return
    assert key in fields
    if not rule.get("required"):
        assert fields[key].default is not attrs.NOTHING


def test_the_model_has_no_more_than_the_schema() -> None:
    """The model has a setting that nobody can set."""
    seen: dict[Any, set[str]] = {}
    for path, _, model in rules(ROOT, Config):
        seen.setdefault(model, set()).add(path.rsplit(".", 1)[-1])
    derived = {"name", "scheme", "host", "port", "origins", "warnings"}
    for model, keys in seen.items():
        assert {name for name in attrs.fields_dict(model) if name not in derived} <= keys, model


def test_rules_are_found_by_path() -> None:
    """A mistyped key is compared with the names of another map."""
    assert (
        rule_at(("services", "a", "targets", 0, "weight"))
        == ROOT["services"]["valuesrules"]["schema"]["targets"]["schema"]["schema"]["weight"]
    )
    assert rule_at(("services", "a", "wieght")) is None
