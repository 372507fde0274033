"""``/limits`` of several workers is one answer."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from apigw.policy.limits.resource import summed

RATE: dict[str, Any] = {
    "id": "00ff",
    "endpoint": "/a",
    "scope": "ip",
    "limit": 5,
    "window": 60.0,
    "algorithm": "log",
    "on_store_failure": "local",
    "violations": 3,
    "keys": 12,
}
PLACES: dict[str, Any] = {
    "id": "11ff",
    "endpoint": "/b",
    "scope": "user",
    "concurrent": 2,
    "taken": 3,
    "on_store_failure": "local",
    "violations": 1,
    "keys": 2,
}
SHOWN_RATE, SHOWN_PLACES = ({key: limit[key] for key in limit if key != "id"} for limit in (RATE, PLACES))


def said(*limits: dict[str, Any], shared: bool = False, up: bool = True) -> dict[str, Any]:
    store = {"kind": "redis", "up": up, "keys": 14, "fallbacks": 7}
    return {"store": store, "limits": deepcopy(list(limits)), "shared": shared}


def test_one_is_shown_as_it_is() -> None:
    """The answer of the only worker is the gateway's."""
    assert summed(said(RATE, PLACES), []) == {"store": said()["store"], "limits": [SHOWN_RATE, SHOWN_PLACES]}


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
    gone = {RATE["id"]: 10, PLACES["id"]: 20, "of-no-limit": 40, "fallbacks": 80}
    shown = summed(said(RATE, PLACES), [said(RATE, PLACES)], gone)
    assert [limit["violations"] for limit in shown["limits"]] == [16, 22]
    assert shown["store"]["fallbacks"] == 94


def test_a_limit_that_another_worker_does_not_have_yet() -> None:
    """During a reload: the limits are those of the worker that was asked."""
    changed = RATE | {"limit": 6}
    assert summed(said(RATE), [said(changed, PLACES)])["limits"] == [SHOWN_RATE]


def test_what_is_shown_alike_is_added_up_apart() -> None:
    """The names of two plans may be the same where what tells them apart may be a secret."""
    other = {**RATE, "id": "22ff", "violations": 100}
    assert [each["violations"] for each in summed(said(RATE, other), [said(RATE, other)])["limits"]] == [6, 200]
