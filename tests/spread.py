"""How the workers of xdist share the tests. They take a file at a time, in the order that all of them find here."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
FIRST = ("test_howto", "test_howto_callers", "test_upgrade", "test_reload", "test_workers")
"""The files that take longest: what is begun last ends soon."""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Each worker reads all files, and begins elsewhere.

    Where they were never read, most of that is rewriting their assertions, which is kept for the other workers.
    """
    if (place := _place(session.config)) and session.config.args == session.config.getini("testpaths"):
        number, workers = place
        files = sorted(map(str, TESTS.rglob("test_*.py")))
        begin = len(files) * number // workers
        session.config.args[:] = files[begin:] + files[:begin]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Functional tests wait for half of their time, and others never do: they are mixed, so that no core is idle."""
    if _place(config) is None:
        return
    groups: tuple[list[Path], list[Path]] = ([], [])
    for file in sorted({item.path for item in items}):
        groups["functional" in file.parts].append(file)
    ranks = {file: (index + 0.5) / len(group) for group in groups for index, file in enumerate(group)}
    ranks |= {file: 0.0 for file in ranks if file.stem in FIRST}
    items.sort(key=lambda item: (ranks[item.path], item.path))


def _place(config: pytest.Config) -> tuple[int, int] | None:
    """The number of this worker, and how many there are; None if this process is none."""
    told = getattr(config, "workerinput", None)
    return told and (int(told["workerid"].removeprefix("gw")), told["workercount"])
