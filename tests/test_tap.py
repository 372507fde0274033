"""With which command the program is started anew in an upgrade."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = "from apigw.tap import _command\nprint(_command())\n"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    script = tmp_path / "twistd"
    script.write_text(f"#!{sys.executable}\n{SCRIPT}")
    script.chmod(0o755)
    return script


def command_of(*started: str | Path, cwd: Path) -> list[str]:
    said = subprocess.run([*started, "-n", "apigw"], capture_output=True, text=True, cwd=cwd, check=True).stdout
    command: list[str] = ast.literal_eval(said)
    return command


def test_a_script_is_executed_itself(script: Path) -> None:
    """When its environment is another, its first line names another interpreter."""
    assert command_of(script, cwd=script.parent) == [str(script)]
    assert command_of(sys.executable, script.name, cwd=script.parent) == [str(script)]


def test_another_interpreter_and_its_options_are_kept(script: Path) -> None:
    assert command_of(sys.executable, "-Xutf8", script.name, cwd=script.parent) == [
        sys.executable,
        "-Xutf8",
        str(script),
    ]
    script.write_text(f"#!/usr/bin/env python3\n{SCRIPT}")
    assert command_of(sys.executable, script, cwd=script.parent) == [sys.executable, str(script)]
