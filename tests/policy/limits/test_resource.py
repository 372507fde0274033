"""``/limits`` of several workers is one answer."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from apigw.policy.limits.resource import summed
from apigw.policy.limits.series import FALLBACKS, VIOLATIONS

RATE = {
    "endpoint": "/a",
    "scope": "ip",
    "limit": 5,
    "window": 60.0,
    "algorithm": "log",
    "on_store_failure": "local",
    "violations": 3,
    "keys": 12,
}
PLACES = {
    "endpoint": "/b",
    "scope": "user",
    "concurrent": 2,
    "taken": 3,
    "on_store_failure": "local",
    "violations": 1,
    "keys": 2,
}


def said(*limits: dict[str, Any], shared: bool = False, up: bool = True) -> dict[str, Any]:
    store = {"kind": "redis", "up": up, "keys": 14, "fallbacks": 7}
    return {"store": store, "limits": deepcopy(list(limits)), "shared": shared}


def test_one_is_shown_as_it_is() -> None:
    """The answer of the only worker is the gateway's."""
    assert summed(said(RATE, PLACES), []) == {"store": said()["store"], "limits": [RATE, PLACES]}


def test_what_each_counts_for_itself_is_added_up() -> None:
    """Keys and places of stores in each process, refusals, and fallbacks; the store is up if it is for all."""
    shown = summed(said(RATE, PLACES), [said(RATE, PLACES), said(PLACES, RATE, up=False)])
    assert shown["store"] == {"kind": "redis", "up": False, "keys": 42, "fallbacks": 21}
    rate, places = shown["limits"]
    assert (rate["violations"], rate["keys"]) == (9, 36)
    assert (places["violations"], places["keys"], places["taken"]) == (3, 6, 9)


def test_what_is_shared_is_not_counted_twice() -> None:
    """Keys and places in memory that the workers share; each counts its refusals."""
    shown = summed(said(RATE, PLACES, shared=True), [said(RATE, PLACES, shared=True)])
    assert (shown["store"]["keys"], shown["store"]["fallbacks"]) == (14, 14)
    rate, places = shown["limits"]
    assert (rate["violations"], rate["keys"]) == (6, 12)
    assert (places["violations"], places["keys"], places["taken"]) == (2, 2, 3)


def test_workers_that_are_gone_have_refused_too() -> None:
    """What they counted for limits that are there now, and their fallbacks."""
    labels = {"endpoint": "/a", "kind": "rate", "scope": "ip"}
    gone = [
        [VIOLATIONS, labels, 10.0],
        [VIOLATIONS, {"endpoint": "/b", "kind": "concurrent", "scope": "user"}, 20.0],
        [VIOLATIONS, labels | {"endpoint": "/no-more"}, 40.0],
        [FALLBACKS, {}, 80.0],
    ]
    shown = summed(said(RATE, PLACES), [said(RATE, PLACES)], gone)
    assert [limit["violations"] for limit in shown["limits"]] == [16, 22]
    assert shown["store"]["fallbacks"] == 94


def test_a_limit_that_another_worker_does_not_have_yet() -> None:
    """During a reload: the limits are those of the worker that was asked."""
    changed = RATE | {"limit": 6}
    assert summed(said(RATE), [said(changed, PLACES)])["limits"] == [RATE]
