"""What a call to Redis fails with."""

from __future__ import annotations


class RedisUnavailable(Exception):
    """No answer that can be used: not connected, refused, or too late."""
