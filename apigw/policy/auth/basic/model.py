"""The configuration of HTTP Basic authentication."""

from __future__ import annotations

from attrs import frozen


@frozen
class BasicProvider:
    """A file of names and hashed passwords. ``forward``: whether the service gets the password, too."""

    name: str
    file: str
    forward: bool = False
