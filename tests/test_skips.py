"""In CI a skipped test must be one that is known to be skipped there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_an_unexpected_skip_fails_the_run(tmp_path: Path) -> None:
    """With APIGW_SKIPS=strict, with workers or without; one that is in the list does not."""
    (tmp_path / "test_known.py").write_text("import pytest\ndef test(): pytest.skip('this user reads everything')\n")
    (tmp_path / "test_odd.py").write_text("import pytest\ndef test(): pytest.skip('no luck')\n")
    (tmp_path / "test_odd_module.py").write_text("import pytest\npytest.importorskip('nowhere')\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-p", "skips", "-p", "no:cacheprovider", *arguments]
        environ = {**os.environ, "APIGW_SKIPS": "strict", "PYTHONPATH": str(Path(__file__).parent)}
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)

    assert run("test_known.py").returncode == 0
    strict = run("-n1", ".")
    assert strict.returncode == 1
    assert "UNEXPECTED SKIP test_odd.py::test: no luck" in strict.stdout
    assert "UNEXPECTED SKIP test_odd_module.py: could not import 'nowhere'" in strict.stdout
    assert "UNEXPECTED SKIP test_known" not in strict.stdout
