"""The systemd unit, and the image, as shipped."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UNIT = (ROOT / "contrib/systemd/apigw.service").read_text()


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def test_the_metrics_of_the_process_are_not_hidden() -> None:
    """They are made of /proc/stat, of which ``ProcSubset=pid`` leaves nothing; other processes stay invisible."""
    assert settings("ProcSubset") == []
    assert settings("ProtectProc") == ["invisible"]


def test_what_the_pages_name_can_be_written() -> None:
    """A socket in /run/apigw, and a log that a group may read."""
    assert settings("RuntimeDirectory") == ["apigw"]
    assert settings("LogsDirectory") == ["apigw"]
    assert settings("UMask") == ["0027"]


def analyzed(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    """``systemd-analyze verify`` accepts both, but for the files that an installation brings."""
    for file in (ROOT / "contrib/systemd").iterdir():
        (tmp_path / file.name).write_text(re.sub(r"/opt/apigw/bin/\S+", "/bin/true", file.read_text()))
    said = analyzed("verify", *sorted(str(file) for file in tmp_path.iterdir()))
    assert [line for line in said.stderr.splitlines() if "apigw" in line] == []


def test_systemd_finds_little_exposed() -> None:
    """``systemd-analyze security``, whose scale ends with 10.0: what is left, as the network, is needed."""
    said = analyzed("security", "--offline=yes", "--threshold=20", str(ROOT / "contrib/systemd/apigw.service"))
    if "unrecognized option" in said.stderr:
        pytest.skip("systemd-analyze is older than 250")
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_user_of_the_image_is_a_number() -> None:
    """Kubernetes cannot tell whether a name is root's."""
    image = (ROOT / "contrib/docker/Dockerfile").read_text()
    number = re.search(r"^USER (\d+)$", image, re.MULTILINE)
    assert number
    assert f"--uid {number[1]} " in image


def test_the_image_is_made_of_what_is_sent_to_docker() -> None:
    """Whatever is not named in the list of what is ignored cannot be copied."""
    folder = ROOT / "contrib/docker"
    listed = (folder / "Dockerfile.dockerignore").read_text().split()
    assert listed[0] == "*"
    sent = [ROOT / each.removeprefix("!") for each in listed if each.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (folder / "Dockerfile").read_text(), re.MULTILINE)
    for source in " ".join(copied).split():
        assert any(path == ROOT / source or ROOT / source in path.parents for path in sent), source
    assert all(path.exists() for path in sent)
