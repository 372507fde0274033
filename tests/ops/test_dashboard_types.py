"""The dashboard's form is Grafana's own: its JSON has the types of ``@grafana/schema``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[2] / "contrib" / "grafana" / "check"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the check with its packages."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    directory = tmp_path_factory.mktemp("check")
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(CHECK / name, directory)
    if (CHECK / "node_modules").is_dir():
        (directory / "node_modules").symlink_to(CHECK / "node_modules")
    else:
        install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--fetch-retries=0"]
        try:
            done = subprocess.run(install, cwd=directory, capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            pytest.skip("npm cannot reach a registry: it took too long")
        if done.returncode:
            pytest.skip(f"npm cannot install Grafana's types: {done.stderr[-300:]}")
    return directory


def checked(directory: Path, text: str) -> str:
    """What ``tsc`` complains of."""
    (directory / "dashboard.ts").write_text(text)
    return subprocess.run(["npx", "--no", "tsc"], cwd=directory, capture_output=True, text=True, timeout=120).stdout


def test_grafana_knows_every_option(installed: Path) -> None:
    """Grafana drops what it does not know, silently: a panel looks other than it was meant to."""
    typed = subprocess.run(
        [sys.executable, CHECK / "typed.py"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    assert checked(installed, typed) == ""
    for meant, mistyped in (('"showLegend"', '"showLegends"'), ('"fillOpacity"', '"fillOpactiy"'), (': "5s"', ": 5")):
        assert meant in typed
        assert "error TS" in checked(installed, typed.replace(meant, mistyped)), meant
