"""The pages about plugins: every command works as it is printed, in an empty directory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest
from support.pages import blocks_of, script_of, shown

from .test_run import ROOT, free_ports


def environ(home: Path) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        # As if it was installed: what a checkout declares is only known where it was installed after that.
        "PYTEST_ADDOPTS": "-p apigw.testing.pytest_plugin -p no:cacheprovider",
    }


@pytest.mark.parametrize("page", ["tutorial-plugin", "howto/plugin-recipes"])
def test_the_commands_do_what_the_page_shows(page: str, tmp_path: Path) -> None:
    """A reader who types what is printed gets what is printed."""
    text = (ROOT / f"docs/{page}.md").read_text()
    printed = ("8080", "9090", "9003", "9004")
    for port, free in zip(printed, free_ports(len(printed)), strict=True):
        text = re.sub(rf"\b{port}\b", str(free), text)
    blocks = [(kind, content) for kind, content in blocks_of(text) if "pip install" not in content]
    (tmp_path / "page.sh").write_text(script_of(blocks))
    running = subprocess.Popen(
        ["bash", "-e", "page.sh"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=environ(tmp_path),
        start_new_session=True,
    )
    try:
        said, _ = running.communicate(timeout=100)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 0, said
    for content, output in shown(blocks, said):
        for line in content.splitlines():
            assert line in output, said


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
