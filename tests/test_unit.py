"""The systemd unit, and the image, as shipped."""

from __future__ import annotations

import re
from pathlib import Path

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


def test_the_user_of_the_image_is_a_number() -> None:
    """Kubernetes cannot tell whether a name is root's."""
    image = (ROOT / "contrib/docker/Dockerfile").read_text()
    number = re.search(r"^USER (\d+)$", image, re.MULTILINE)
    assert number
    assert f"--uid {number[1]} " in image
