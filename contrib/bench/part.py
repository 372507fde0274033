"""What a part of the comparison hands back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from bench.figures import Verdict


@frozen
class Part:
    """``text`` is Markdown for a reader, ``data`` JSON for a plot or another run, under ``name``."""

    name: str
    title: str
    text: str
    data: dict[str, Any]
    verdicts: Sequence[Verdict] = ()

    def __str__(self) -> str:
        return f"\n## {self.title}\n\n{self.text}\n"
