"""Children of the test's process that share its memory, as workers share the page."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NoReturn


class Child:
    """A forked process."""

    def __init__(self, run: Callable[[Callable[[], None]], object]) -> None:
        """``run`` is called in the child with a function that says "so far"; the child ends when it returns."""
        self._heard, said = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            _be_child(run, said)
        os.close(said)
        self._status: int | None = None

    def wait_so_far(self) -> None:
        """Until it says so. Fails if it ends before."""
        assert os.read(self._heard, 1) == b".", "the child has failed"

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def stop(self) -> None:
        """Until it stands still."""
        self.signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Its exit status, negative for a signal."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._heard)
        return self._status


def _say(said: int) -> None:
    os.write(said, b".")


def _be_child(run: Callable[[Callable[[], None]], object], said: int) -> NoReturn:
    status = 1
    try:
        run(partial(_say, said))
        status = 0
    finally:
        os._exit(status)


@contextmanager
def child(run: Callable[[Callable[[], None]], object]) -> Iterator[Child]:
    """One that is killed at the end if it still runs."""
    process = Child(run)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()


def holds(take: Callable[[], object]) -> Callable[[Callable[[], None]], object]:
    """For a child: take something, say so, and keep it until a signal comes."""

    def run(so_far: Callable[[], None]) -> None:
        take()
        so_far()
        signal.pause()

    return run
