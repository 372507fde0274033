"""The plugins that come with the gateway are short, as what they need is in the contract."""

from __future__ import annotations

import ast
import tokenize
from io import StringIO
from pathlib import Path

import pytest

PLUGINS = sorted(path.parent for path in Path(__file__).resolve().parents[2].glob("apigw/plugins/*/plugin.py"))
MOST = 150
"""Lines of code: without empty lines, comments and docstrings."""
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of_code(source: str) -> int:
    code: set[int] = set()
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type not in NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(code)


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_of_our_own_is_short(plugin: Path) -> None:
    """At most 150 lines of code, all its modules together."""
    assert sum(lines_of_code(file.read_text()) for file in plugin.rglob("*.py")) <= MOST
