"""A reload when files have changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from apigw.config.load import load
from apigw.config.model import Config
from apigw.process.rules import RULES
from apigw.process.watching import INTERVAL, Watching

ETC = """\
gateway: {listen: ["tcp:0"], admin: null, admin_token_file: token, watch_files: %s}
services: {a: {targets: ["http://127.0.0.1:1"]}}
routes: [{path: /a, service: a}]
"""

Change = Callable[[Path], object]


class Watched:
    """A configuration in files, as Kubernetes mounts a ConfigMap: through a link that is replaced."""

    def __init__(self, root: Path, watch: bool = True) -> None:
        self.etc = root / "etc"
        for version in ("1", "2"):
            (root / version).mkdir()
            (root / version / "all.yaml").write_text(ETC % ("true" if watch else "false"))
            (root / version / "token").write_text("0123456789abcdef" * 4)
        self.etc.symlink_to("1")
        self.clock, self.reloads = Clock(), 0
        self.config: Config = load(str(self.etc), {}, RULES)
        self.watching = Watching(self.clock, str(self.etc), lambda: self.config, self._reload)
        self.watching.startService()

    def _reload(self) -> None:
        self.reloads += 1
        self.config = load(str(self.etc), {}, RULES)

    def looks(self, number: int) -> None:
        self.clock.pump([INTERVAL] * number)


def _swap(etc: Path) -> None:
    (etc.parent / "new").symlink_to("2")
    os.replace(etc.parent / "new", etc)


CHANGES: dict[str, Change] = {
    "a file is written": lambda etc: (etc / "all.yaml").write_text(ETC % "true" + "# more"),
    "a file is added": lambda etc: (etc / "b.yaml").write_text("rate_limits: []"),
    "a named file is written": lambda etc: (etc / "token").write_text("fedcba9876543210" * 4 + "00"),
    "the directory is replaced": _swap,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_one_change_is_one_reload(change: Change, tmp_path: Path) -> None:
    """Whatever changed: the gateway reloads once, when it has stayed so from one look to the next."""
    watched = Watched(tmp_path)
    watched.looks(3)
    assert watched.reloads == 0
    change(watched.etc)
    watched.looks(1)
    assert watched.reloads == 0
    watched.looks(5)
    assert watched.reloads == 1


def test_what_is_being_written_is_awaited(tmp_path: Path) -> None:
    """A file that goes on changing is not read."""
    watched = Watched(tmp_path)
    for number in range(5):
        (watched.etc / "all.yaml").write_text(ETC % "true" + "#" * number)
        watched.looks(1)
        assert watched.reloads == 0
    watched.looks(2)
    assert watched.reloads == 1


def test_a_directory_that_is_gone_for_a_while(tmp_path: Path) -> None:
    """Files that are taken away are a change too, which the reload judges."""
    watched = Watched(tmp_path)
    (watched.etc / "all.yaml").rename(tmp_path / "kept")
    watched.looks(1)
    (tmp_path / "kept").rename(watched.etc / "all.yaml")
    watched.looks(5)
    assert watched.reloads == 0


def test_off_by_default(tmp_path: Path) -> None:
    """Without the key nothing reloads by itself."""
    watched = Watched(tmp_path, watch=False)
    (watched.etc / "all.yaml").write_text(ETC % "false" + "# more")
    watched.looks(5)
    assert watched.reloads == 0


def test_what_changed_before_it_was_switched_on_is_read(tmp_path: Path) -> None:
    """Between the reload that switches it on and the first look, a change is not lost."""
    watched = Watched(tmp_path, watch=False)
    watched.looks(2)
    watched.config = evolve(watched.config, gateway=evolve(watched.config.gateway, watch_files=True))
    (watched.etc / "all.yaml").write_text(ETC % "true" + "# more")
    watched.looks(5)
    assert watched.reloads == 1
