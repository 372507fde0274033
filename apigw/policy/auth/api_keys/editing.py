"""Changes a file of API keys, for ``apigw keys``. A file is never written in place, but replaced by a new one."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from apigw.policy.auth.api_keys.records import HEADER, Record, parse, rendered

Change = Callable[[list[bytes]], list[bytes]]


def records(path: str) -> Iterator[Record]:
    """The keys in a file. Raises ``OSError``, and ``ValueError`` with the number of a line that is wrong."""
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.startswith("#"):
                try:
                    yield parse(line.removesuffix("\n"))
                except ValueError as error:
                    raise ValueError(f"line {number} {error}") from None


def add(path: str, record: Record) -> None:
    """Put a key into a file, which is made if it does not exist: readable by its owner alone."""
    line = rendered(record).encode()

    def added(lines: list[bytes]) -> list[bytes]:
        comments = sum(1 for each in lines if each.startswith(b"#"))
        at = bisect_left(lines, line, lo=comments)
        return [*lines[:at], line, *lines[at:]]

    _change(path, added, make=True)


def remove(path: str, id: str, digest: str = "") -> int:
    """Take the keys of ``id`` whose hash begins with ``digest`` out of a file. Returns how many there were.

    Raises ``OSError``, also where there is no file.
    """
    removed = 0

    def without(lines: list[bytes]) -> list[bytes]:
        nonlocal removed
        kept = []
        begin = digest.encode()
        for line in lines:
            if line.startswith(begin) and not line.startswith(b"#") and line.split(b"\t", 2)[1:2] == [id.encode()]:
                removed += 1
            else:
                kept.append(line)
        return kept

    _change(path, without)
    return removed


def sort(path: str) -> None:
    """Bring the lines of a file into order, and leave out those that are there twice. Raises ``OSError``."""

    def sorted_lines(lines: list[bytes]) -> list[bytes]:
        comments = [line for line in lines if line.startswith(b"#")]
        return [*comments, *sorted({line for line in lines if line.strip() and not line.startswith(b"#")})]

    _change(path, sorted_lines)


def _change(path: str, change: Change, make: bool = False) -> None:
    path = os.path.realpath(path)
    with _alone(os.path.dirname(path)):
        try:
            with open(path, "rb") as file:
                status: os.stat_result | None = os.fstat(file.fileno())
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            if not make:
                raise
            status, lines = None, [HEADER.encode()]
        if lines and not lines[-1].endswith(b"\n"):
            lines[-1] += b"\n"
        _replace(path, change(lines), status)


@contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Two changes at once would lose one of them."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: str, lines: list[bytes], before: os.stat_result | None) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".", dir=os.path.dirname(path))
    try:
        with open(descriptor, "wb") as file:
            file.writelines(lines)
            file.flush()
            if before is not None:
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
