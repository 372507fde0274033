"""In how many ways a JSON Schema has a value tried, as the time grows with them that it takes to say what is wrong."""

from __future__ import annotations

from math import inf
from typing import Any
from urllib.parse import unquote

_UNKNOWN = {"$dynamicRef": "#"}
_SEVERAL = {
    "allOf", "anyOf", "oneOf", "not", "if", "contains", "dependencies", "dependentSchemas", "patternProperties",
    "propertyNames", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$recursiveRef",
}  # fmt: skip
_BELOW = {"properties", "items", "prefixItems", "additionalItems", "additionalProperties"}


def ways_of(document: Any) -> float:
    """One, and the number of schemas in all ``anyOf`` and ``oneOf``, each as often as it is referred to.

    ``inf`` where the schema refers to itself and may have one value tried twice: what is wrong with a value that is
    nested ``n`` deep is found in a time that grows as ``2 ** n`` then. Whether it is valid is found soon all the same.
    """
    try:
        ways = _ways(document, document, {})
    except RecursionError:  # a reference to a reference, and so on
        ways = inf
    return 1 + (ways if ways < inf or _tries_twice(document) else 0)


def _ways(part: Any, document: Any, known: dict[str, float]) -> float:
    if isinstance(part, list):
        return sum(_ways(each, document, known) for each in part)
    if not isinstance(part, dict):
        return 0
    if not part.keys().isdisjoint(("$dynamicRef", "$recursiveRef", *(("$id",) if part is not document else ()))):
        return inf
    ways = sum(len(part[name]) for name in ("anyOf", "oneOf") if isinstance(part.get(name), list))
    # The document's definitions count where they are referred to. Elsewhere, the name may be that of a property.
    apart = ("$defs", "definitions") if part is document else ()
    below = sum(_ways(each, document, known) for name, each in part.items() if name not in apart)
    reference = part.get("$ref")
    if isinstance(reference, str) and reference not in known:
        known[reference] = inf  # as long as it is not known: for what leads to itself
        known[reference] = _ways(_referred(document, reference), document, known)
    return ways + below + (known[reference] if isinstance(reference, str) else 0)


def _referred(document: Any, reference: str) -> Any:
    """What a JSON Pointer leads to."""
    where, *steps = unquote(reference).split("/")
    found = document if where == "#" else _UNKNOWN
    for step in steps:
        below = dict(zip(map(str, range(len(found))), found, strict=True)) if isinstance(found, list) else found
        found = below.get(step.replace("~1", "/").replace("~0", "~"), _UNKNOWN) if isinstance(below, dict) else _UNKNOWN
    return found


def _tries_twice(part: Any) -> bool:
    """Whether one value may be tried by two schemas."""
    if isinstance(part, dict):
        both = "$ref" in part and not _BELOW.isdisjoint(part)
        return both or not _SEVERAL.isdisjoint(part) or any(map(_tries_twice, part.values()))
    return isinstance(part, list) and any(map(_tries_twice, part))
