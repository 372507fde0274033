"""How-to pages: every command works as it is printed, on the gateway of ``make run``.

Those about who calls are in ``test_howto_callers``, so that two workers share them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import redis_server
from support.pages import blocks_of, script_of, shown

from .test_run import ROOT, Running, free_ports


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


def page_of(name: str, running: Running | None = None) -> str:
    """Its text, with the ports of a gateway that runs."""
    text = (ROOT / f"docs/{name}.md").read_text()
    ports = {"8080": "PORT", "8443": "TLS_PORT", "9090": "ADMIN_PORT"}
    changed = {printed: running.ports[port] for printed, port in ports.items()} if running else {}
    changed.update(zip(("9003", "9004"), free_ports(2), strict=True))
    for printed, port in changed.items():
        text = re.sub(rf"\b{printed}\b", str(port), text)
    return text


def environment(running: Running) -> dict[str, str]:
    ports = {name: str(port) for name, port in running.ports.items()}
    return {**ports, "APIGW_ADMIN": f"tcp:{running.ports['ADMIN_PORT']}:interface=127.0.0.1"}


def run(checkout: Path, script: str, environ: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    (checkout / "run").mkdir(exist_ok=True)
    (checkout / "run/page.sh").write_text(script)
    return subprocess.run(
        ["bash", *options, "run/page.sh"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        cwd=checkout,
        env={**os.environ, **environ},
        check=False,
    )


def follow(checkout: Path, text: str, environ: dict[str, str]) -> None:
    """Each block of output is what its commands print, and the configuration is in the end as it was."""
    before = {file: file.read_text() for file in (checkout / "etc").rglob("*.yaml")}
    blocks = blocks_of(text)
    done = run(checkout, script_of(blocks), environ, "-e")
    assert done.returncode == 0, done.stdout
    for content, said in shown(blocks, done.stdout):
        for line in content.splitlines():
            assert line in said
        statuses = [line for line in content.splitlines() if line.isdecimal()]
        assert statuses in ([], [line for line in said.splitlines() if line.isdecimal()])
    assert {file: file.read_text() for file in (checkout / "etc").rglob("*.yaml")} == before


@pytest.mark.parametrize(
    "page", ["add-a-service", "choose-breaker-thresholds", "grpc", "limit-a-route", "plans", "trace-requests"]
)
def test_commands_do_what_the_page_shows(page: str, checkout: Path, running: Running) -> None:
    """A reader who types what is printed gets what is printed."""
    follow(checkout, page_of(f"howto/{page}", running), environment(running))


def test_two_gateways_share_limits(checkout: Path, tmp_path: Path) -> None:
    """The page for which `make run` does not run. A file of a gateway that is killed goes with the test."""
    (tmp_path / "redis-server").symlink_to(redis_server.binary())
    ports = dict(zip(("6390", "8081", "8082", "9091", "9092"), map(str, free_ports(5)), strict=True))
    text = re.sub(rf"\b({'|'.join(ports)})\b", lambda found: ports[found[1]], page_of("howto/share-limits"))
    follow(checkout, text.replace("/tmp/", f"{tmp_path}/"), {"PATH": f"{tmp_path}:{os.environ['PATH']}"})


def test_the_tutorial(checkout: Path, running: Running) -> None:
    """Each answer is the one that the text names, in this order."""
    (made, *blocks) = blocks_of(page_of("tutorial", running))
    assert made == ("sh", "make run\n")
    done = run(checkout, "".join(content for _, content in blocks), environment(running))
    sought = (
        "HTTP/1.1 200", "x-forwarded-proto", "HTTP/2 200", "HTTP/2 200", "data: ", "hello", "HTTP/1.1 404",
        "HTTP/1.1 405", "HTTP/1.1 400", "/api/v1/users/:id", "people.yaml:3:14", "users", ": reloaded", "HTTP/1.1 404",
        "people.yaml:6:1", "HTTP/1.1 404", ": reloaded",
    )  # fmt: skip
    rest = done.stdout
    for each in sought:
        assert each in rest, (each, done.stdout)
        rest = rest.partition(each)[2]
