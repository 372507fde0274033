"""What a new user types: pages that begin with ``pip install``, as printed, in an empty environment."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.pages import blocks_of, script_of, shown

ROOT = Path(__file__).resolve().parents[2]


def _free_ports(number: int) -> list[str]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [str(each.getsockname()[1]) for each in taken]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of plain Python, which is made in seconds. It is made of a source distribution, as by who downloads one."""
    made = tmp_path_factory.mktemp("dist")
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(made)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    (source,) = made.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", str(made)]
    subprocess.run([*pip, str(source)], env={**os.environ, "APIGW_COMPILE": "0"}, check=True)
    (built,) = made.glob("*.whl")
    return built


@pytest.mark.parametrize("page", ["howto/your-own", "tutorial-plugin"])
def test_the_page_does_what_it_shows(page: str, wheel: Path, tmp_path: Path) -> None:
    """From an empty directory to a gateway with a token and a limit, and to plugins with their tests."""
    text = (ROOT / f"docs/{page}.md").read_text()
    ports = sorted(set(re.findall(r"\b(?:8080|90\d\d)\b", text)))
    for printed, port in zip(ports, _free_ports(len(ports)), strict=True):
        text = re.sub(rf"\b{printed}\b", port, text)
    text = text.replace("CHECKOUT=~/apigw", f"CHECKOUT={wheel}")
    hashes = re.compile(r" *\\$|^ *--hash.*\n", re.MULTILINE)
    locked = "".join((ROOT / f"requirements/{name}.txt").read_text() for name in ("test", "editable"))
    (tmp_path / "versions").write_text(hashes.sub("", locked))
    blocks = blocks_of(text)
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL", "APIGW"))}
    environ |= {name: str(tmp_path / "versions") for name in ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT")}
    done = subprocess.run(
        ["bash", "-e", "-m", "-c", script_of(blocks)],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for content, said in shown(blocks, done.stdout):
        assert all(line in said for line in content.splitlines()), said


def test_a_source_distribution_is_whole(tmp_path: Path) -> None:
    """It has the shipped configuration, what is under contrib, and the documentation."""
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    (source,) = tmp_path.glob("*.tar.gz")
    listed = subprocess.run(["tar", "tzf", source], capture_output=True, text=True, check=True).stdout
    for wanted in (
        "etc/gateway.yaml",
        "etc/services/users.yaml",
        "contrib/systemd/apigw.service",
        "contrib/docker/Dockerfile",
        "contrib/kubernetes/deployment.yaml",
        "contrib/grafana/gateway.json",
        "docs/tutorial.md",
        "docs/reference/configuration.md",
        "requirements/run.txt",
        "twisted/plugins/apigw_plugin.py",
        "apigw/policy/limits/sliding_window.lua",
    ):
        assert f"/{wanted}\n" in listed, wanted
