"""The file that ``twistd --logfile`` names, as logrotate wants it.

Twisted's ``LogFile.rotate``, which twistd calls for SIGUSR1, does nothing when the file has been moved away.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService, MultiService
from twisted.logger import FileLogObserver, ILogObserver, Logger, textFileLogObserver
from twisted.python import threadable
from twisted.python.logfile import LogFile

log = Logger()


class _File(LogFile):
    synchronized = ["reopen"]  # noqa: RUF012  # with the writes of other threads

    def reopen(self) -> None:
        super().reopen()


threadable.synchronize(_File)


class OwnLog:
    """Opened by ``observer``."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: LogFile | None = None

    def observer(self) -> FileLogObserver:
        self._file = _File.fromFullPath(self._path)
        return textFileLogObserver(self._file)  # type: ignore[arg-type]  # it writes text as UTF-8

    def reopen(self) -> None:
        """Go on in the file of that name, which may be a new one. If it cannot be opened, the old one goes on."""
        file = self._file
        if file is None:
            return
        try:
            open(file.path, "ab").close()
        except OSError as error:
            log.warn("cannot reopen {path}: {error}", path=file.path, error=error.strerror)
        else:
            file.reopen()


class Logging(MultiService):
    """The program and its log: twistd takes an observer from the application, before it makes one of its own."""

    def __init__(self, program: IService, own_log: OwnLog) -> None:
        super().__init__()
        program.setServiceParent(self)
        self._own_log = own_log

    def setServiceParent(self, parent: Any) -> None:
        parent.setComponent(ILogObserver, self._own_log.observer())
        super().setServiceParent(parent)
