"""Pages about plugins: every command works as it is printed, in an empty directory. The tutorial, which installs, is in
contrib/install."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from support.pages import blocks_of, script_of, shown

from .test_run import ROOT


def environ(home: Path) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        # As if it was installed: what a checkout declares is only known where it was installed after that.
        "PYTEST_ADDOPTS": "-p apigw.testing.pytest_plugin -p no:cacheprovider",
    }


def test_the_recipes(tmp_path: Path) -> None:
    """A reader who types what is printed gets what is printed."""
    blocks = blocks_of((ROOT / "docs/howto/plugin-recipes.md").read_text())
    done = subprocess.run(
        ["bash", "-e", "-c", script_of(blocks)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=environ(tmp_path),
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
    for content, output in shown(blocks, done.stdout):
        for line in content.splitlines():
            assert line in output, done.stdout


def test_hello_world(tmp_path: Path) -> None:
    """With its test it has at most twenty lines, and both work as they are printed."""
    page = (ROOT / "docs/reference/plugins.md").read_text()
    printed = re.findall(r"^    # (\w+\.py)\n((?:    .*\n|\n)+?)(?=\n    #|\n    pytest)", page, re.MULTILINE)
    files = {name: dedent(code) for name, code in printed}
    assert sorted(files) == ["hello.py", "test_hello.py"]
    assert sum(len(code.strip().splitlines()) for code in files.values()) <= 20
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    pytest_ = [sys.executable, "-m", "pytest", "-q"]
    tested = subprocess.run(pytest_, cwd=tmp_path, env=environ(tmp_path), capture_output=True, text=True, timeout=60)
    assert "1 passed" in tested.stdout, tested.stdout
