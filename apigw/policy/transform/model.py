"""The configuration of changes to requests and answers."""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import Route

Pairs = tuple[tuple[str, str], ...]
"""Names of fields, and their values with braces."""


@frozen
class HeaderRules:
    """``set`` replaces what the message has of that name, ``add`` does not."""

    set: Pairs = ()
    add: Pairs = ()
    remove: tuple[str, ...] = ()

    @property
    def written(self) -> Pairs:
        return self.set + self.add

    @property
    def gone(self) -> frozenset[bytes]:
        """Names, in lower case, of fields that the message loses."""
        return frozenset(name.lower().encode("ascii") for name in (*(name for name, _ in self.set), *self.remove))


@frozen
class Rewrite:
    path: str | None = None
    host: str | None = None


@frozen
class TransformOfRoute:
    rewrite: Rewrite | None = None
    request_headers: HeaderRules = HeaderRules()
    response_headers: HeaderRules = HeaderRules()


def transform_of(route: Route) -> TransformOfRoute:
    return route.of(TransformOfRoute)
