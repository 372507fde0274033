"""The configuration of API keys."""

from __future__ import annotations

from attrs import frozen


@frozen
class APIKeys:
    """A file of API keys, which callers send in ``header``. ``forward``: whether the service gets that, too."""

    name: str
    file: str
    header: str = "X-API-Key"
    forward: bool = False
