"""The configuration of fixed answers."""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import Route

BODILESS = (204, 205, 304)
"""Statuses of answers without a body (RFC 9110 §6.4.1, §15.3.6)."""


@frozen
class Respond:
    """``headers`` are names, and values with braces."""

    status: int = 200
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


@frozen
class RespondOfRoute:
    respond: Respond | None = None


def respond_of(route: Route) -> Respond | None:
    return route.of(RespondOfRoute).respond
