"""The page of known attacks: each row names tests, and there are such tests."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from support.http1_server import exchange

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/explanation/known-attacks.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
ATTACKS = [row for row in ROWS if row[0] != "attack"]


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text())
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(function.name for function in functions)


@pytest.mark.parametrize("row", ATTACKS, ids=lambda row: row[0])
def test_each_attack_has_its_tests(row: list[str]) -> None:
    """A row has four cells, real CVE numbers, and in the last one tests that exist."""
    assert len(row) == 4, row
    for number in re.findall(r"CVE\S*", row[1]):
        assert re.fullmatch(r"CVE-(19|20)\d\d-\d{4,6},?", number)
    named = re.findall(r"`([^`]+)`", row[3])
    assert named
    for file, _, name in (each.partition("::") for each in named):
        assert name in names_in(file), f"{file} has no {name}"


def test_no_row_is_overlooked() -> None:
    """The page has its rows where this file finds them."""
    assert len(ATTACKS) > 50
    assert len(ATTACKS) == sum(line.count("| `tests/") for line in PAGE.splitlines())


@pytest.mark.parametrize(
    "line",
    [b"PROXY TCP4 203.0.113.7 10.0.0.1 1 80\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\7\n\0\0\1\0\1\0\x50"],
)
def test_a_proxy_line_is_no_request(line: bytes) -> None:
    """Who puts a line of the PROXY protocol before its request is refused, and not believed."""
    outcome = exchange([line + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
    assert (outcome.statuses, outcome.requests) == ([400], ())
