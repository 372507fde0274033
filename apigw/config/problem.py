"""A problem in a configuration, and its place."""

from __future__ import annotations

from attrs import frozen

Path = tuple[str | int, ...]


@frozen
class Origin:
    """The place of a value in the files. Line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


def dotted(path: Path) -> str:
    """A path as text: ``("routes", 0, "methods", 1)`` is ``routes[0].methods[1]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@frozen
class Problem:
    """One sentence about one place. ``origin`` is ``None`` if there is no file, as for an empty directory."""

    sentence: str
    path: Path = ()
    origin: Origin | None = None

    def __str__(self) -> str:
        parts = (str(self.origin) if self.origin else "", dotted(self.path), self.sentence)
        return ": ".join(part for part in parts if part)
