"""Limits in words: for ``apigw routes``, and for warnings of routes that escape them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from attrs import evolve

from apigw.config.model import Config, Route
from apigw.config.rules import Less
from apigw.config.units import duration_text
from apigw.policy.limits.model import UNMATCHED, LimitsSection, RateLimit, beside
from apigw.routing.hosts import may_have
from apigw.routing.pattern import Pattern, overlaps


def told(config: Config, route: Route, path: bytes) -> Iterator[tuple[str, str]]:
    """First what applies to everybody, then the plans of each place in the order in which they are tried."""
    limits = [limit for limit in _of(config, route) if _holds(limit, route, path)]
    for limit in limits:
        if limit.who is None:
            yield "limit", in_words(limit)
    places: dict[str, list[RateLimit]] = {}
    for limit in limits:
        if limit.who is not None:
            places.setdefault(limit.place, []).append(limit)
    for planned in places.values():
        order = list(dict.fromkeys(limit.who for limit in planned))
        for who in order:
            first = "" if who == order[0] else "else "
            for limit in planned:
                if limit.who == who:
                    yield "plan", f"{first}{_whose(limit)}: {in_words(limit)}"


def told_unmatched(config: Config) -> Iterator[tuple[str, str]]:
    for limit in config.of(LimitsSection).rate_limits:
        if limit.endpoint == UNMATCHED:
            yield "limit", in_words(limit)


def weaker(config: Config) -> Less:
    limits = [
        (each, Pattern.parse(each.endpoint)) for each in config.of(LimitsSection).rate_limits if _is_matched(each)
    ]
    return partial(_less, config, limits)


def _less(
    config: Config, limits: Sequence[tuple[RateLimit, Pattern]], route: Route, other: Route, path: bytes
) -> str | None:
    """A limit of ``route`` that does not hold for ``path``, in words; whoever wrote a route for that knows it."""
    own, theirs = Pattern.parse(route.path), Pattern.parse(other.path)
    if own.matches(path) or (not theirs.wildcard and _trimmed(own) == _trimmed(theirs)):
        return None
    of_host = [(limit, pattern) for limit, pattern in limits if may_have(limit.hosts, route.hosts)]
    held = [limit for limit, pattern in of_host if pattern.matches(path)]
    held += [limit for limit in _of(config, other) if limit.route == other.name]
    tested = [limit for limit, pattern in of_host if overlaps(pattern, own) == "always"]
    if route.name != other.name:
        tested += [limit for limit in _of(config, route) if limit.route == route.name]
    for limit in tested:
        if limit.dry_run:
            continue
        alike = (evolve(each, endpoint=limit.endpoint, hosts=limit.hosts, route=limit.route) for each in held)
        if limit not in alike:
            return f"escapes the limit on {limit.named}"
    return None


def _of(config: Config, route: Route) -> tuple[RateLimit, ...]:
    """Those at the top, and those beside the route."""
    return config.of(LimitsSection).rate_limits + beside(route, set())


def _is_matched(limit: RateLimit) -> bool:
    """Whether it is of what its pattern matches."""
    return limit.route is None and limit.endpoint != UNMATCHED


def _holds(limit: RateLimit, route: Route, path: bytes) -> bool:
    if not _is_matched(limit):
        return limit.route == route.name
    return Pattern.parse(limit.endpoint).matches(path) and may_have(limit.hosts, route.hosts)


def _trimmed(pattern: Pattern) -> tuple[bytes | None, ...]:
    """Its segments, without a slash at the end."""
    return pattern.segments[:-1] if pattern.segments[-1:] == (b"",) else pattern.segments


def _whose(limit: RateLimit) -> str:
    said = str(limit.who) or "everybody"
    return said if limit.plan is None else f"{limit.plan} ({said})"


def in_words(limit: RateLimit) -> str:
    by = limit.counts_by
    each = {"user": "for each user", "ip": "for each address", "endpoint": "for all callers together"}.get(by)
    each = each or f"for each {by.replace(', ', ' and ')}"
    number = (
        f"{limit.concurrent} at a time" if limit.window is None else f"{limit.limit} in {duration_text(limit.window)}"
    )
    return f"{number} {each} ({limit.place}){', a dry run: nothing is refused' if limit.dry_run else ''}"
