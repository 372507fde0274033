"""The configuration of rate limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve, field, frozen

from apigw.config.model import Condition, Route
from apigw.routing.conditions import in_words, shown_in_words

UNMATCHED = "unmatched"
"""The ``endpoint`` of a limit for requests that match no route."""

SHORT: dict[str, tuple[str, ...]] = {"user": ("principal",), "ip": ("address",), "endpoint": ()}
"""What each ``scope`` is the short form of."""


@frozen
class By:
    """A value of a request that a limit counts by: of a header, or of a claim."""

    header: str | None = None
    claim: str | None = None


Dimension = str | By
"""``principal``, ``address``, or a value of the request."""


@frozen
class Who:
    """For whom a plan is. All that is given must fit; without anything it is for everybody.

    Of ``roles``, ``providers`` and ``principals`` one is enough. ``claims`` are pairs of a claim and what it must be.
    """

    roles: tuple[str, ...] = ()
    claims: tuple[tuple[str, Any], ...] = ()
    headers: tuple[Condition, ...] = ()
    providers: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()

    @property
    def asks_for_caller(self) -> bool:
        return bool(self.roles or self.claims or self.providers or self.principals)

    def __str__(self) -> str:
        """In words, without values that may be secrets."""
        return self._said(shown_in_words)

    @property
    def whole(self) -> str:
        """In words, different for different ones."""
        return self._said(in_words)

    def _said(self, words: Callable[[str, Condition], str]) -> str:
        said = [
            f"{name} {' or '.join(each)}"
            for name, each in (("role", self.roles), ("provider", self.providers), ("principal", self.principals))
            if each
        ]
        said += [f"claim {name} is {_values(value)}" for name, value in self.claims]
        return ", ".join([*said, *(words("header", each) for each in self.headers)])


@frozen
class RateLimit:
    """Either ``limit`` and ``window``, or ``concurrent``; of an ``endpoint`` or of a ``route``, by its name. Without
    ``hosts``, for all.

    ``scope``: user, ip, endpoint; else ``by``. ``algorithm``: auto, log, counter. ``on_store_failure``: local, open,
    closed. ``plan`` and what ``who`` has make it an entry of a plan.
    """

    endpoint: str = ""
    limit: int | None = None
    window: float | None = None
    scope: str | None = field(default=None, kw_only=True)
    algorithm: str = "auto"
    on_store_failure: str = "local"
    concurrent: int | None = None
    hosts: tuple[str, ...] = ()
    route: str | None = None
    by: tuple[Dimension, ...] = ()
    plan: str | None = None
    roles: tuple[str, ...] = ()
    claims: tuple[tuple[str, Any], ...] = ()
    headers: tuple[Condition, ...] = ()
    providers: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    dry_run: bool = False

    @property
    def who(self) -> Who | None:
        """``None`` if it belongs to no plan."""
        who = Who(self.roles, self.claims, self.headers, self.providers, self.principals)
        return None if who == Who() and self.plan is None else who

    @property
    def place(self) -> str:
        """What it limits, in words: its route, or its hosts and its endpoint."""
        if self.route is not None:
            return f"route {self.route}"
        return ",".join(self.hosts) + (" " if self.hosts and self.endpoint == UNMATCHED else "") + self.endpoint

    @property
    def named(self) -> str:
        """``place``, and the plan, as they are shown."""
        who = self.who
        return self.place if who is None else f"{self.place} ({self.plan or who})"

    @property
    def identity(self) -> str:
        """As ``named``, different for different plans."""
        who = self.who
        return self.place if who is None else f"{self.place} ({self.plan or who.whole})"

    @property
    def counts_by(self) -> str:
        """The ``scope``, also where it is written as ``by``; else all that it counts by, in words."""
        if self.scope is not None:
            return self.scope
        short = next((scope for scope, by in SHORT.items() if by == self.by), None)
        return short or ", ".join(sorted(map(dimension_in_words, self.by)))


def dimension_in_words(dimension: Dimension) -> str:
    if isinstance(dimension, str):
        return dimension
    return f"claim {dimension.claim}" if dimension.header is None else f"header {dimension.header.lower()}"


def _values(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " or ".join(map(_values, value)) if isinstance(value, tuple) else str(value)


@frozen
class LimitsSection:
    rate_limits: tuple[RateLimit, ...] = ()


@frozen
class LimitsOfRoute:
    """Those that are written beside a route."""

    rate_limits: tuple[RateLimit, ...] = ()


@frozen
class LimitsOfGateway:
    """``rate_limit_fields``: usual, draft, both, none."""

    rate_limit_fields: str = "usual"


def beside(route: Route, seen: set[str]) -> tuple[RateLimit, ...]:
    """Those that are written beside a route, unless its name is in ``seen``, to which it is added."""
    limits = route.of(LimitsOfRoute).rate_limits
    if not limits or route.name in seen:
        return ()
    seen.add(route.name)
    return tuple([evolve(each, route=route.name) for each in limits])
