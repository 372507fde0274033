"""Where Redis is, as a URL says it."""

from __future__ import annotations

from urllib.parse import urlsplit

from attrs import frozen

PORT = 6379


@frozen
class Address:
    """``secure`` is TLS, which verifies; ``database`` is None where it is the first."""

    host: str
    port: int
    database: int | None
    secure: bool

    @classmethod
    def parse(cls, url: str) -> Address:
        """``redis://`` or ``rediss://``, ``host[:port][/database]``. Raises ``ValueError`` for any other."""
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss"):
            raise ValueError(f"the scheme {parts.scheme!r} is not redis or rediss")
        database = parts.path.strip("/")
        if database and not database.isdecimal():
            raise ValueError(f"the database {database!r} is not a number")
        return cls(
            parts.hostname or "127.0.0.1", parts.port or PORT, int(database or 0) or None, parts.scheme == "rediss"
        )
