"""How many workers ``workers: auto`` means."""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path, PurePosixPath

MOST = 64
"""Maximum number of workers; the shared page has a slot for each."""


def workers(configured: int | str) -> int:
    """The number of processes that serve, for ``gateway.workers``."""
    return configured if isinstance(configured, int) else auto(len(os.sched_getaffinity(0)), _quota())


def auto(cores: int, quota: float | None) -> int:
    """One for each core that the process may run on, and no more than its CPU quota, rounded up; 64 at most."""
    return max(1, min(cores, MOST, cores if quota is None else ceil(quota)))


def _quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The CPUs' worth of time that the control group and those above it leave (cgroups(7)); None for no bound.

    Version 2 has ``cpu.max``, "quota period" in microseconds; version 1 two files in the hierarchy ``cpu``.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        # In a container the group's own path may not be visible: then it is mounted as the root.
        for group in (PurePosixPath(path), *PurePosixPath(path).parents):
            found += _of(top / str(group).lstrip("/"))
    return min(found, default=None)


def _of(group: Path) -> list[float]:
    for read in (_version_2, _version_1):
        try:
            quota, period = read(group)
            return [int(quota) / int(period)] if int(quota) > 0 else []
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return []


def _version_2(group: Path) -> list[str]:
    return (group / "cpu.max").read_text().split()


def _version_1(group: Path) -> list[str]:
    return [(group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]
