"""The address of Redis in ``redis.url``."""

from __future__ import annotations

from urllib.parse import urlsplit

from attrs import frozen

PORT = 6379


@frozen
class Address:
    """``secure``: verified TLS. ``database`` is None for the first one."""

    host: str
    port: int
    database: int | None
    secure: bool

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse ``redis://host[:port][/database]`` or ``rediss://…``. Raises ``ValueError`` for other texts."""
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss"):
            raise ValueError(f"the scheme {parts.scheme!r} is not redis or rediss")
        database = parts.path.strip("/")
        if database and not database.isdecimal():
            raise ValueError(f"the database {database!r} is not a number")
        return cls(
            parts.hostname or "127.0.0.1", parts.port or PORT, int(database or 0) or None, parts.scheme == "rediss"
        )
