"""Fixed answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.routed import Routed

TEXT = (b"content-type", b"text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("respond", "expected"),
    [
        ({}, (200, [(b"content-length", b"0")], b"")),
        ({"status": 204}, (204, [], b"")),
        ({"status": 304}, (304, [], b"")),
        ({"status": 410, "body": "gone {x}\n"}, (410, [TEXT, (b"content-length", b"9")], b"gone {x}\n")),
        (
            {"body": "<p>é</p>", "content_type": "text/html", "headers": {"X-Id": "{param.id}", "X-No": "{claims.a}"}},
            (200, [(b"content-type", b"text/html"), (b"content-length", b"9"), (b"x-id", b"7")], "<p>é</p>".encode()),
        ),
    ],
)
def test_answers(tmp_path: Path, respond: dict[str, Any], expected: tuple[int, list[Any], bytes]) -> None:
    """Status, headers and body are what is written; braces only in headers."""
    made = Routed(tmp_path, {"path": "/a/:id", "respond": respond})
    answer = made.answer(made.exchange("/a/7"))
    assert (answer.status, answer.headers, answer.body) == expected
