"""The paths of a route as it is written: one, or a list."""

from __future__ import annotations

from collections.abc import Iterator

from apigw.config.merge import Document
from apigw.config.model import Path


def paths_of(document: Document, route: Path) -> Iterator[tuple[Path, str]]:
    """The paths of the route at ``route`` that have no problems, with their places in the document."""
    path: Path = (*route, "path")
    held = document.get(*path)
    if isinstance(held, str):
        yield path, held
    else:
        yield from document.entries(*path)
