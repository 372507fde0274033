"""What runs here, and what the kernel says of cores, CPU time and memory. Linux: everything here is read from /proc."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

import apigw

PROC = Path("/proc")
TICK = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


@frozen
class Cores:
    """``proxy`` is the core of the program that is measured; ``load`` that of the load, the origin and the bench."""

    proxy: int
    load: int

    @property
    def shared(self) -> bool:
        return self.proxy == self.load

    @property
    def both(self) -> tuple[int, int]:
        """For a program of several processes: it shares the second core with the load."""
        return self.proxy, self.load


def choose_cores(allowed: set[int]) -> Cores:
    """The last core for the proxy and the first for all else; one and the same where there is only one."""
    return Cores(proxy=max(allowed), load=min(allowed))


@contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """What is started inside runs on ``cores`` and nowhere else: a child inherits the mask, without a race."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@frozen
class Stat:
    """A line of /proc/PID/stat, as far as we need it. ``ticks`` holds the waited-for children too (proc(5))."""

    pid: int
    state: str
    session: int
    ticks: int


def parse_stat(text: str) -> Stat:
    """The command name stands in parentheses and may itself contain parentheses and spaces: count from the last one."""
    pid, _, rest = text.partition(" (")
    fields = rest[rest.rindex(")") + 2 :].split()
    return Stat(pid=int(pid), state=fields[0], session=int(fields[3]), ticks=sum(map(int, fields[11:15])))


def processes(session: int) -> list[Stat]:
    """The processes of a session. What the bench starts leads a session of its own: these are it and its children."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError):
                stat = parse_stat((entry / "stat").read_text())
                if stat.session == session and stat.state != "Z":
                    found.append(stat)
    return found


def cpu_seconds(session: int) -> float:
    """User and system time that the session has used so far; good to one clock tick (usually 10 ms) a process."""
    return sum(stat.ticks for stat in processes(session)) / TICK


@frozen
class Memory:
    """Bytes. ``pss`` divides what several processes share among them; 0 where the kernel does not tell."""

    rss: int
    pss: int


def parse_kilobytes(text: str, name: str) -> int:
    """The value, in bytes, of a ``Name:  123 kB`` line of /proc/PID/status or smaps_rollup; 0 if there is none."""
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _sum_of(session: int, file: str, name: str) -> int:
    total = 0
    for stat in processes(session):
        with suppress(OSError):
            total += parse_kilobytes((PROC / str(stat.pid) / file).read_text(), name)
    return total


def memory(session: int) -> Memory:
    return Memory(rss=_sum_of(session, "status", "VmRSS"), pss=_sum_of(session, "smaps_rollup", "Pss"))


def private(text: str) -> int:
    """The bytes that a process shares with no other one, of its smaps_rollup: clean and dirty."""
    return parse_kilobytes(text, "Private_Clean") + parse_kilobytes(text, "Private_Dirty")


def peak_rss(session: int) -> int:
    """The highest that each process ever stood, in bytes, or since ``forget_peak``; added up."""
    return _sum_of(session, "status", "VmHWM")


def forget_peak(session: int) -> None:
    """Start ``peak_rss`` anew. Where the kernel refuses, peaks stay those of a lifetime: the strict side."""
    for stat in processes(session):
        with suppress(OSError):
            (PROC / str(stat.pid) / "clear_refs").write_text("5")


def raise_file_limit() -> int:
    """Let us, and what we start, have as many open files as we may, but no absurd number. Returns that number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(soft, min(hard, 65536))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def describe() -> dict[str, str]:
    """The machine, for the head of a report."""
    cpu = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in (PROC / "cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "apigw": apigw.__version__ + (", compiled" if apigw.is_compiled() else ", as plain Python"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
