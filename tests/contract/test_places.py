"""How much may be under way for one client, and for all."""

from __future__ import annotations

from apigw.contract.places import Places


def test_places() -> None:
    """A client has its own bound below that of all; what is given back another may have."""
    places = Places(3, 2)
    assert [places.take(caller) for caller in ("a", "a", "a", "b", "b")] == [True, True, False, True, False]
    places.give_back("a")
    assert [places.take(caller) for caller in ("b", "b")] == [True, False]
