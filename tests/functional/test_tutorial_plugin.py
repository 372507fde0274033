"""The pages about plugins: every command works as it is printed, in an empty directory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from .test_howto import BLOCK, MARK
from .test_run import ROOT, free_ports


@pytest.mark.parametrize("page", ["tutorial-plugin", "howto/plugin-recipes"])
def test_the_commands_do_what_the_page_shows(page: str, tmp_path: Path) -> None:
    """A reader who types what is printed gets what is printed."""
    text = (ROOT / f"docs/{page}.md").read_text()
    printed = ("8080", "9090", "9003", "9004")
    for port, free in zip(printed, free_ports(len(printed)), strict=True):
        text = re.sub(rf"\b{port}\b", str(free), text)
    blocks = BLOCK.findall(text)
    script = "".join(content + f"echo '{MARK}'\n" for kind, content in blocks if kind == "sh")
    environ = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        # As if it was installed: what a checkout declares is only known where it was installed after that.
        "PYTEST_ADDOPTS": "-p apigw.testing.pytest_plugin -p no:cacheprovider",
    }
    (tmp_path / "page.sh").write_text(script)
    running = subprocess.Popen(
        ["bash", "-e", "page.sh"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=environ,
        start_new_session=True,
    )
    try:
        said, _ = running.communicate(timeout=100)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 0, said
    outputs = iter(said.split(MARK))
    output = ""
    for kind, content in blocks:
        if kind == "sh":
            output = next(outputs)
        else:
            for line in content.splitlines():
                assert line in output, said
