"""Checks of plans in the configuration."""

from __future__ import annotations

from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.nearest import hint
from apigw.config.paths import paths_of
from apigw.config.validate import shown
from apigw.policy.auth.jwt.rules import claim_name
from apigw.policy.auth.model import default_auth
from apigw.policy.auth.rules import provider_names
from apigw.policy.limits.model import UNMATCHED
from apigw.policy.limits.written import OF_CALLERS, Who, Written, all_written, name_of
from apigw.routing.pattern import Pattern, overlaps
from apigw.routing.rules import conditions


def plans(document: Document, files: Files) -> None:
    """Reports plans that nobody can fit, and names that contradict each other. Warns of plans that are never reached,
    of limits by caller where nobody is one, and of limits that clients escape by another value of a header."""
    limits = list(all_written(document))
    callers = _Callers(document)
    places: dict[tuple[object, ...], dict[object, Written]] = {}
    for limit in limits:
        conditions(document, limit.path)
        for at, _ in document.entries(*limit.path, "claims"):
            claim_name(document, at)
        callers.check(limit)
        if limit.who is not None and document.is_sound(limit.path):
            earlier = places.setdefault(limit.place, {})
            _named(document, limit, earlier)
            _reached(document, limit, earlier)
            key = _key(limit.who)
            if earlier.setdefault(key, limit).entry.get("dry_run"):
                earlier[key] = limit
    if document.whole:
        _chosen_by_clients(document, limits)


class _Callers:
    """Whether a route has callers that a plan can fit."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._has_auth = document.tree.get("auth") is not None
        self._providers = provider_names(document)
        self._default = default_auth(document.get("gateway", "auth_default"), self._has_auth)
        self._open: dict[str, bool] = {}
        for path, route in document.entries("routes"):
            name = name_of(document, path)
            if name is not None and isinstance(route, dict):
                auth = route.get("auth") or self._default
                self._open[name] = self._open.get(name, True) and auth == "none"

    def check(self, limit: Written) -> None:
        document, path = self._document, limit.path
        asked = [key for key in OF_CALLERS if key in limit.entry]
        if not document.whole or limit.endpoint == UNMATCHED:
            return
        nobody = self._nobody(limit)
        if asked and nobody:
            at = (*path, asked[0])
            document.report(at, f"fits nobody: {nobody}", document.key(at))
        elif nobody and _of_callers(limit):
            at = (*path, "by" if "by" in limit.entry else "scope")
            document.warn(at, f"counts by address, as nobody is known: {nobody}", document.key(at))
        if self._has_auth and document.get("auth") is not None:
            for at, name in document.entries(*path, "providers"):
                if name not in self._providers:
                    near = hint(str(name), self._providers)
                    document.report(at, f"{shown(document, at, name)} is not the name of a provider{near}")
        if "principals" in asked and "providers" not in asked and len(self._providers) > 1:
            several = ", ".join(self._providers)
            sentence = f"are those of every provider ({several}), which may have the same ids: write `providers`, too"
            document.warn((*path, "principals"), sentence, document.key((*path, "principals")))

    def _nobody(self, limit: Written) -> str:
        """Why it has no callers but anonymous ones; no text where it may have."""
        if not self._has_auth:
            return "there is no auth section"
        if limit.route is not None:
            return "the route needs no authentication" if self._open.get(limit.route) else ""
        return "no route needs authentication" if all(self._open.values()) else ""


def _key(who: Who) -> object:
    return frozenset(who.items())


def _named(document: Document, limit: Written, earlier: dict[object, Written]) -> None:
    """A plan has one name and one set of conditions."""
    name = limit.entry.get("plan")
    for key, other in earlier.items():
        same = limit.who is not None and key == _key(limit.who)
        theirs = other.entry.get("plan")
        at = (*limit.path, "plan")
        if same and name != theirs:
            said = f"{theirs!r}" if theirs else "without a name"
            document.report(at, f"is for the same callers as the plan at {document.place(other.at)}, which is {said}")
        elif not same and name is not None and name == theirs:
            document.report(at, f"has other conditions than at {document.place(other.at)}: a plan has one set of them")


def _reached(document: Document, limit: Written, earlier: dict[object, Written]) -> None:
    """Warns if an earlier plan takes all who fit. A dry run takes nobody yet."""
    who = limit.who
    if who is None or _key(who) in earlier:
        return
    for other in earlier.values():
        if other.who is not None and _takes(other.who, who):
            said = "would never be reached: the dry run" if other.entry.get("dry_run") else "is never reached: the plan"
            place = document.place(other.at)
            document.warn(limit.at, f"{said} at {place} comes first, and fits all its callers")
            return


def _takes(earlier: Who, later: Who) -> bool:
    """Whether all who fit ``later`` fit ``earlier``."""
    for key, accepted in earlier.items():
        wanted = later.get(key)
        if wanted is None:
            return False
        if not (accepted <= wanted if key in ("claims", "headers") else wanted <= accepted):
            return False
    return True


def _chosen_by_clients(document: Document, limits: list[Written]) -> None:
    """A limit by a header, where no other limit holds that has none in its key."""
    firm = [limit for limit in limits if limit.who is None and not limit.entry.get("dry_run") and not _headers(limit)]
    places = {limit.place for limit in firm}
    patterns = [limit.pattern for limit in firm if limit.pattern is not None and not limit.hosts]
    paths: dict[str, list[Pattern]] = {}
    for route, _ in document.entries("routes"):
        name = name_of(document, route)
        if name is not None:
            paths.setdefault(name, []).extend(Pattern.parse(text) for _, text in paths_of(document, route))
    for limit in limits:
        headers = _headers(limit)
        if not headers or limit.entry.get("dry_run"):
            continue
        own = paths.get(limit.route or "", []) if limit.pattern is None else [limit.pattern]
        if limit.place not in places and not any(_cover(pattern, own) for pattern in patterns):
            at: Path = (*limit.path, "by")
            names = ", ".join(sorted(headers))
            sentence = (
                f"counts by {names}, and clients can send another value with each request: "
                "write a second limit, by address or principal"
            )
            document.warn(at, sentence, document.key(at))


def _of_callers(limit: Written) -> bool:
    """Whether it counts by what only a caller has."""
    return any(
        each == "principal" or (isinstance(each, tuple) and "claim" in dict(each)) for each in limit.counts_by or ()
    )


def _headers(limit: Written) -> list[str]:
    return [each[0][1] for each in limit.counts_by or () if isinstance(each, tuple) and dict(each).get("header")]


def _cover(pattern: Pattern, own: list[Pattern]) -> bool:
    """Whether it matches all that ``own`` match."""
    return bool(own) and all(overlaps(pattern, each) == "always" for each in own)
