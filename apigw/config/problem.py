"""What is wrong with a value, and where it stands."""

from __future__ import annotations

from attrs import frozen

Path = tuple[str | int, ...]


@frozen
class Origin:
    """Where a value stands in the files: line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


def dotted(path: Path) -> str:
    """``("routes", 0, "methods", 1)`` as people write it: ``routes[0].methods[1]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@frozen
class Problem:
    """One sentence about one place. ``origin`` is ``None`` for what stands in no file (an empty directory)."""

    sentence: str
    path: Path = ()
    origin: Origin | None = None

    def __str__(self) -> str:
        parts = (str(self.origin) if self.origin else "", dotted(self.path), self.sentence)
        return ": ".join(part for part in parts if part)
