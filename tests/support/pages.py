"""Pages of the documentation, typed as printed: blocks of commands, and of what these print."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

Block = tuple[str, str]
"""The kind, ``sh`` (commands) or ``text`` (what those before it print), and the content."""

_BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "=== the next block ==="


def blocks_of(text: str) -> list[Block]:
    return _BLOCK.findall(text)


def script_of(blocks: Sequence[Block]) -> str:
    """All commands. What it prints is for ``shown``."""
    return "".join(content + f"echo '{_MARK}'\n" for kind, content in blocks if kind == "sh")


def shown(blocks: Sequence[Block], output: str) -> Iterator[tuple[str, str]]:
    """Each block of text, and what the commands before it have printed."""
    outputs = iter(output.split(_MARK))
    said = ""
    for kind, content in blocks:
        if kind == "sh":
            said = next(outputs)
        else:
            yield content, said
