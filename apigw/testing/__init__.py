"""Tests of plugins: a gateway in memory, with a clock that is moved, and scripted services.

The same test runs against a daemon and over sockets, with ``pytest --apigw-daemon`` (docs/reference/plugins.md).
"""

from __future__ import annotations

from apigw.testing.gateway import Answer, Gateway
from apigw.testing.services import Received, Reply

__all__ = ("Answer", "Gateway", "Received", "Reply")
