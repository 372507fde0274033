"""What is compiled is told apart by its first line, and by nothing else."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from apigw import is_compiled

ROOT = Path(__file__).resolve().parents[1]
FIRST_LINE = "# Compiled: see docs/decisions/compiled.md"


def marked() -> list[str]:
    """The modules that say that they are compiled."""
    files = [file for file in sorted((ROOT / "apigw").rglob("*.py")) if file.read_text().startswith(FIRST_LINE + "\n")]
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]


def test_the_first_line() -> None:
    """It is the one that setup.py looks for, and stands nowhere else than in the first line."""
    assert f'MARK = "{FIRST_LINE}"\n' in (ROOT / "setup.py").read_text()
    assert "apigw.proxy.pipeline" in marked()
    for file in (ROOT / "apigw").rglob("*.py"):
        assert "# Compiled:" not in file.read_text().removeprefix(FIRST_LINE + "\n"), file


@pytest.mark.skipif(not is_compiled(), reason="only a wheel is compiled")
def test_what_says_so_is_compiled() -> None:
    """All of it, and no more."""
    for file in (ROOT / "apigw").rglob("*.py"):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        assert spec.origin.endswith(".so") is (module in marked()), module
