"""``gateway.watch_files``: reload when files have changed.

They are looked at by name, and not by inotify: a ConfigMap of Kubernetes is replaced by another target of a symbolic
link in the path, and network file systems tell nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from twisted.application.internet import TimerService
from twisted.logger import Logger

from apigw.config.merge import yaml_files
from apigw.config.model import Config

INTERVAL = 2.0
"""Seconds between two looks. A change counts when the next look finds nothing new: it may have been half-written."""

log = Logger()

State = dict[str, tuple[int, int, int]]
"""When each file was changed, its size and its inode."""


class Watching(TimerService):
    """Looks at the files in ``directory``, and at those that the configuration names, while it says so.

    A file that comes into use by a reload is known from then on. One that cannot be read is as if it was not there.
    """

    def __init__(
        self, reactor: Any, directory: str, config: Callable[[], Config], reload: Callable[[], object]
    ) -> None:
        super().__init__(INTERVAL, self._look)
        self.clock = reactor
        self._last: State | None = None
        self._directory = directory
        self._config = config
        self._reload = reload
        self._known: State = self._state() if config().gateway.watch_files else {}

    def _look(self) -> None:
        state = self._state() if self._config().gateway.watch_files else None
        if state is None:
            # When it is switched on, one reload more tells for certain that what is read is what is there.
            self._known = {}
        elif state == self._last and (changed := _differ(state, self._known)):
            if self._known:
                log.info("files have changed: {files}", files=", ".join(sorted(changed)))
            self._known = state
            self._reload()
        self._last = state

    def _state(self) -> State:
        return dict(self._states())

    def _states(self) -> Iterator[tuple[str, tuple[int, int, int]]]:
        for file in {*self._config().files, *yaml_files(self._directory)}:
            with suppress(OSError, ValueError):
                status = os.stat(file)
                yield file, (status.st_mtime_ns, status.st_size, status.st_ino)


def _differ(new: State, old: State) -> set[str]:
    return {file for file, _ in new.items() ^ old.items()}
