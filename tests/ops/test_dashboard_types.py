"""The dashboard's form is Grafana's own: its JSON has the types of ``@grafana/schema``."""

from __future__ import annotations

import json
import re
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


def test_grafana_knows_every_option(installed: Path) -> None:
    """Grafana drops what it does not know, silently: a panel looks other than it was meant to."""
    typed = subprocess.run(
        [sys.executable, CHECK / "typed.py"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    files = {"dashboard.ts": typed}
    for name, meant, mistyped in (
        ("legend.ts", '"showLegend"', '"showLegends"'),
        ("opacity.ts", '"fillOpacity"', '"fillOpactiy"'),
        ("refresh.ts", ': "5s"', ": 5"),
    ):
        assert meant in typed
        files[name] = typed.replace(meant, mistyped)
    for name, text in files.items():
        (installed / name).write_text(text)
    settings = json.loads((installed / "tsconfig.json").read_text())
    settings["files"] = list(files)
    (installed / "tsconfig.json").write_text(json.dumps(settings))
    tsc = subprocess.run(["npx", "--no", "tsc"], cwd=installed, capture_output=True, text=True, timeout=120)
    wrong = set(re.findall(r"^(\w+\.ts)\(.*error TS", tsc.stdout, re.MULTILINE))
    assert wrong == files.keys() - {"dashboard.ts"}, tsc.stdout
