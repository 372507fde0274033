"""Routes of the configuration as entries of a router."""

from __future__ import annotations

from typing import TypeVar

from apigw.config.model import Route
from apigw.routing.conditions import Conditions
from apigw.routing.trie import EMPTY_SEGMENT, ENCODED_SLASH, Entry

T = TypeVar("T")


def entry_of(route: Route, value: T) -> Entry[T]:
    """The entry of ``route``, with the ``value`` to find."""
    return Entry(
        route.path,
        None if route.methods is None else frozenset(method.encode("ascii") for method in route.methods),
        value,
        route.hosts,
        conditions_of(route),
        route.strict_methods,
        keeps_of(route),
    )


def keeps_of(route: Route) -> int:
    """Which oddities a path may have, as bits."""
    encoded_slash = ENCODED_SLASH if route.encoded_slashes == "keep" else 0
    return encoded_slash | (EMPTY_SEGMENT if route.empty_segments == "keep" else 0)


def conditions_of(route: Route) -> Conditions | None:
    """``None`` if it has none."""
    if not route.headers and not route.query and not route.cookies:
        return None
    return Conditions(route.headers, route.query, route.cookies)
