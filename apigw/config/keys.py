"""How a key of the configuration is declared: rules of a Cerberus schema, and who adds which keys to which map.

Besides the rules of Cerberus there are more: ``duration``, ``size`` and ``share`` have the minimum and the maximum,
``form`` names an entry of ``Rules.forms``. ``meta`` is for the reference page and for the steps after validation:

- ``answers`` marks keys of a route that say who answers, of which it has one.
- ``doc`` explains the key; ``default`` describes its default, if that is not in the model.
- ``model`` is the class for the values of a map; its attributes have the defaults.
- ``file`` names the check of the file's content, an entry of ``Rules.contents``. With ``into``, the file's text becomes
  the value of the key that ``into`` names.
- ``instead`` has keys that people write and that are not here, with what there is instead: the hint of the error.
- ``like`` shows a value to who writes one of another type.
- ``meant`` has what people write in place of an allowed value, or of a key of a map, with what to write: the hint of
  the error. ``number`` has what to write in place of a number, such as ``tcp:{}``.
- ``merge`` is ``"names"`` for maps of rules for headers (``set``, ``add``, ``remove``): a default's rules stay, but for
  those of the same names (``config.defaults``).
- ``short`` is the key that is meant by a text in place of a map.
- ``lines`` marks text that may have several lines.
- ``plain`` marks maps that are taken as they are.
- ``secret`` marks values that are never shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

from attrs import Factory, frozen

Rule = dict[str, Any]

DAY, MONTH = "24h", "744h"

_META = ("answers", "default", "instead", "into", "like", "lines", "meant", "merge", "number", "secret", "short")


@frozen
class Keys:
    """Keys that a policy adds to a map of the configuration.

    ``at`` is the path to the map, without indexes of lists and names of services: ``()`` for the top level,
    ``("gateway",)``, ``("services",)`` and ``("routes",)``. The values become those of ``model``, an attrs class with a
    default for each (``Open.of``). ``meant``: see above, of that map.
    """

    at: tuple[str, ...]
    model: type[Any]
    rules: Mapping[str, Rule]
    meant: Mapping[str, str] = Factory(dict)


def attribute(key: str) -> str:
    """What the key is called in the model: ``for_`` for ``for`` (PEP 8)."""
    return f"{key}_" if iskeyword(key) else key


def duration(doc: str, least: str, most: str, **more: Any) -> Rule:
    return _rule(doc, more, duration=[least, most])


def size(doc: str, least: str, most: str, **more: Any) -> Rule:
    return _rule(doc, more, size=[least, most])


def share(doc: str, least: str, most: str, **more: Any) -> Rule:
    return _rule(doc, more, share=[least, most])


def whole(doc: str, least: int, most: int, **more: Any) -> Rule:
    return _rule(doc, more, type="integer", min=least, max=most)


def number_or_word(doc: str, form: str, least: int, most: int, **more: Any) -> Rule:
    """A whole number, or a text that ``form`` knows."""
    return _rule(doc, more, type=["integer", "string"], form=form, min=least, max=most)


def switch(doc: str, **more: Any) -> Rule:
    return _rule(doc, more, type="boolean")


def switch_or_map(doc: str, model: type[Any], schema: Rule, **more: Any) -> Rule:
    """True or false; or a map, which means true and says more."""
    rule = _rule(doc, more, type=["boolean", "dict"], schema=schema)
    rule["meta"]["model"] = model
    return rule


def number_of(doc: str, *allowed: int, **more: Any) -> Rule:
    """One of these numbers."""
    return _rule(doc, more, type="integer", allowed=list(allowed))


def lines(doc: str, **more: Any) -> Rule:
    """Any text, of one line or several."""
    return _rule(doc, more, type="string", lines=True)


def text(doc: str, form: str, **more: Any) -> Rule:
    return _rule(doc, more, type="string", form=form)


def one_or_several(doc: str, form: str, **more: Any) -> Rule:
    """A text, or a list of texts; it becomes a tuple."""
    return _rule(doc, more, type=["string", "list"], form=form, schema=item(form), minlength=1)


def choice(doc: str, *allowed: str, **more: Any) -> Rule:
    return _rule(doc, more, type="string", allowed=list(allowed))


def file(doc: str, holds: str, **more: Any) -> Rule:
    rule = _rule(doc, more, type="string", form="file")
    rule["meta"]["file"] = holds
    return rule


def optional_file(doc: str, holds: str, **more: Any) -> Rule:
    return file(doc, holds, nullable=True, **more)


def secret(doc: str) -> Rule:
    """A key with any text, which becomes a ``Secret``."""
    return _rule(doc, {}, type="string", nullable=True, secret=True)


def named(doc: str, entry: Rule, **more: Any) -> Rule:
    """A map whose keys are names. It becomes a tuple: of what ``entry`` has as model, with the ``name``; else of pairs
    of names and values."""
    return _rule(doc, more, type="dict", valuesrules=entry)


def list_of(doc: str, item: Rule, **more: Any) -> Rule:
    return _rule(doc, more, type="list", schema=item)


def map_of(doc: str, model: type[Any] | None, schema: Rule, **more: Any) -> Rule:
    rule = _rule(doc, more, type="dict", schema=schema)
    rule["meta"]["model"] = model
    return rule


def may_be_list(rule: Rule) -> bool:
    """Whether the rule's ``schema`` is that of the entries of a list."""
    return "list" in rule.get("type", ())


def item(form: str) -> Rule:
    """The rule for the text entries of a list."""
    return {"type": "string", "form": form}


def _rule(doc: str, more: Rule, **rules: Any) -> Rule:
    given = {**rules, **more}
    meta = {key: given.pop(key) for key in _META if key in given}
    return {**given, "meta": {"doc": doc, **meta}}
