"""The configuration of external checks."""

from __future__ import annotations

from attrs import frozen


@frozen
class Check:
    """A program that is asked about requests. ``send`` and ``take`` are names of headers, as written."""

    name: str
    url: str
    send: tuple[str, ...] = ("Authorization", "Cookie")
    take: tuple[str, ...] = ()
    timeout: float = 1.0
    cache: float = 0.0


@frozen
class ChecksSection:
    checks: tuple[Check, ...] = ()


@frozen
class CheckOfRoute:
    """The name of the check."""

    check_with: str | None = None
