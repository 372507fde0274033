"""How-to pages: every command works as it is printed, on the gateway of ``make run``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .test_run import ROOT, Running, free_ports

BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "=== the next block ==="


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the pages change."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("etc", "contrib"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / ".venv").symlink_to(sys.prefix)
    return checkout


@pytest.fixture(scope="module")
def running(checkout: Path) -> Iterator[Running]:
    """The gateway of all pages: each ends with the configuration with which it began."""
    running = Running(checkout / "run", checkout / "contrib/run.py")
    yield running
    running.stop()


@pytest.mark.parametrize(
    "page",
    [
        "add-a-service",
        "api-keys",
        "choose-breaker-thresholds",
        "external-check",
        "grpc",
        "issue-tokens",
        "limit-a-route",
        "plans",
        "mutual-tls",
        "trace-requests",
        "verify-tokens",
        "rotate-keys",
    ],
)
def test_commands_do_what_the_page_shows(page: str, checkout: Path, running: Running) -> None:
    """A reader who types what is printed gets what is printed."""
    before = {file: file.read_text() for file in (checkout / "etc").rglob("*.yaml")}
    text = (ROOT / f"docs/howto/{page}.md").read_text()
    ports = {"8080": running.ports["PORT"], "9090": running.ports["ADMIN_PORT"]}
    ports.update(zip(("9003", "9004"), free_ports(2), strict=True))
    for printed, port in ports.items():
        text = re.sub(rf"\b{printed}\b", str(port), text)
    blocks = BLOCK.findall(text)
    script = "".join(content + f"echo '{MARK}'\n" for kind, content in blocks if kind == "sh")
    environ = {**os.environ, **{name: str(port) for name, port in running.ports.items()}}
    environ["APIGW_ADMIN"] = f"tcp:{running.ports['ADMIN_PORT']}:interface=127.0.0.1"
    (checkout / "run/page.sh").write_text(script)
    done = subprocess.run(
        ["bash", "-e", "run/page.sh"], capture_output=True, text=True, timeout=120, cwd=checkout, env=environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = iter(done.stdout.split(MARK))
    said = ""
    for kind, content in blocks:
        if kind == "sh":
            said = next(outputs)
        else:
            for line in content.splitlines():
                assert line in said
            statuses = [line for line in content.splitlines() if line.isdecimal()]
            assert statuses in ([], [line for line in said.splitlines() if line.isdecimal()])
    assert {file: file.read_text() for file in (checkout / "etc").rglob("*.yaml")} == before
