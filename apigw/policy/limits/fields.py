# Compiled: see docs/decisions/compiled.md
"""What answers say of limits, where it is not the usual: the fields of draft-ietf-httpapi-ratelimit-headers-11."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Final
from urllib.parse import quote

from apigw.config.units import duration_text
from apigw.contract.exchange import Exchange
from apigw.policy.limits.arithmetic import HEADERS, Checks, Decision, Limit
from apigw.policy.limits.concurrent import Claim, ConcurrentLimit
from apigw.policy.limits.quota import Quota
from apigw.wire.headers import Header, Headers

DRAFT: Final = frozenset({b"ratelimit", b"ratelimit-policy"})

_IN_STRING: Final = " !#$&'()*+,/:;<=>?@[]^`{|}~"
"""Besides letters, digits and ``_.-~``: what stands for itself in a String (RFC 9651 §3.3.3) and a limit's name."""


class Fields:
    """Which fields answers have, besides ``Retry-After``. ``now`` is Unix time."""

    def __init__(self, usual: bool, draft: bool, now: Callable[[], float]) -> None:
        self._usual = usual
        self._draft = draft
        self._now = now
        self._dropped = (HEADERS if usual else frozenset[bytes]()) | (DRAFT if draft else frozenset[bytes]())
        self._items: dict[bytes, Item] = {}

    def tell(self, exchange: Exchange, decision: Decision | None, checks: Checks, places: Claim | None) -> None:
        """Add them to the answer, in place of the service's. ``decision`` is ``None`` where nothing was checked."""
        added: Headers = []
        if decision is not None:
            added += (
                decision.headers if self._usual else [each for each in decision.headers if each[0] == b"retry-after"]
            )
        if self._draft:
            policies = [self._item(limit).policy for limit, _ in checks] if decision is not None else []
            if places is not None:
                policies += [self._item(limit).policy for limit, _ in places.wanted]
            if policies:
                added.append((b"ratelimit-policy", b", ".join(policies)))
            if decision is not None:
                added.append(self._limit(decision))
        if added:
            exchange.dropped = exchange.dropped | self._dropped
            exchange.added = [*exchange.added, *added]

    def _limit(self, decision: Decision) -> Header:
        """The tightest limit: what is left, and for how many seconds that is all.

        Where it refuses, that is for as long as ``Retry-After`` says.
        """
        left = ceil(decision.reset - self._now()) if decision.allowed else decision.retry_after
        return b"ratelimit", b"%b;r=%d;t=%d" % (self._item(decision.limit).name, decision.remaining, max(left, 0))

    def _item(self, limit: Quota) -> Item:
        """Limits that a worker's share stands for have its id, and another number."""
        item = self._items.get(limit.id)
        if item is None:
            item = self._items[limit.id] = Item(limit)
        return item


class Item:
    """What is said of a limit: its ``name``, and its ``policy``, which does not change. Both are items of RFC 9651.

    A window is whole seconds, rounded up: who keeps to that keeps to the limit.
    """

    def __init__(self, limit: Quota) -> None:
        by = {"user": " by principal", "ip": " by address", "endpoint": ""}.get(limit.scope, f" by {limit.scope}")
        if isinstance(limit, Limit):
            self.name = _string(f"{limit.endpoint}{by} in {duration_text(limit.window)}")
            self.policy = b"%b;q=%d;w=%d" % (self.name, limit.limit, ceil(limit.window))
        else:
            assert isinstance(limit, ConcurrentLimit)
            self.name = _string(f"{limit.endpoint}{by} at a time")
            self.policy = b'%b;q=%d;qu="concurrent-requests"' % (self.name, limit.most)


def _string(text: str) -> bytes:
    return b'"%b"' % quote(text, safe=_IN_STRING).encode("ascii")
