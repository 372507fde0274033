"""``twistd apigw``: its options, and the only file that touches the global reactor.

What takes time to import is imported when the signals have their handlers.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, ClassVar, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from apigw import __version__
from apigw.config.model import Config, Log
from apigw.process.garbage import paused
from apigw.process.own_log import STDERR, Logging, OwnLog
from apigw.process.signals import HANDED, Signals
from apigw.wire.reactor.epoll import install as install_reactor


def _open_standard() -> None:
    """Open what is closed of standard input, output and error, to nothing. Else what is opened next has its number, as
    a connection of a client, and gets what is written there."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


class Options(usage.Options):
    """Validated before twistd becomes a daemon, so that mistakes reach the terminal."""

    optParameters: ClassVar = [["config", "c", "etc", "The directory with the configuration (YAML)."]]
    optFlags: ClassVar = [
        [
            "log-decisions",
            None,
            "Log each routing decision, and why the answer of a service was invalid, at debug level.",
        ]
    ]
    longdesc: ClassVar = "An API gateway. Documentation: docs/."
    config: Config | None = None
    """Until the program has it."""
    own_log: OwnLog | None = None

    def __init__(self) -> None:
        _open_standard()
        self.command = _command()
        self.signals = Signals()
        if HANDED in os.environ:
            self.signals.hold()  # there are workers of the program before, which are to drain
        self.signals.install()
        install_reactor()
        super().__init__()

    def opt_version(self) -> None:
        print(f"apigw {__version__}")
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            if "not recognized" not in str(error):
                raise
            raise usage.UsageError(f"{error}: options of twistd stand before apigw, as in twistd -n apigw") from None

    def parseArgs(self, *given: str) -> None:
        if given:
            raise usage.UsageError(f"{given[0]} is too much: the configuration is given as --config {given[0]}")

    @paused()
    def postOptions(self) -> None:
        from apigw.config.errors import ConfigError
        from apigw.config.load import load
        from apigw.process.rules import RULES

        self["config"] = os.path.abspath(self["config"])
        try:
            self.config = load(self["config"], os.environ, RULES)
            self._check_logs(self.config)
        except ConfigError as error:
            _refuse(error)
        self._take_own_log(self.parent or {}, self.config.gateway.log)

    def again(self) -> list[str]:
        """The command that starts this program in this very process, after all that twistd has done to it."""
        twistd: Any = self.parent or {}
        given = ["-n", "--pidfile="]
        if self.own_log is not None and self.own_log.file != STDERR:
            given.append(f"--logfile={self.own_log.file}")
        given += [f"--{name}" for name in ("syslog",) if twistd.get(name)]
        given += [f"--{name}={twistd[name]}" for name in ("prefix", "logger") if twistd.get(name)]
        own = [f"--config={self['config']}", *(["--log-decisions"] if self["log-decisions"] else [])]
        return [*self.command, *given, "apigw", *own]

    def _check_logs(self, config: Config) -> None:
        """A daemon's standard output leads nowhere."""
        from apigw.config.errors import ConfigError, problem_in

        if not self.parent or self.parent["nodaemon"]:
            return
        for name, written in (("access_log", config.gateway.access_log), ("audit_log", config.gateway.audit_log)):
            if written is not None and written.file == "-":
                sentence = (
                    "standard output is lost when twistd becomes a daemon: start it with twistd -n, or name a file"
                )
                raise ConfigError([problem_in(config, ("gateway", name, "file"), sentence)])

    def _take_own_log(self, twistd: Any, wanted: Log) -> None:
        """Where twistd would write its log to standard output or a file. Standard output is for the access log."""
        if "nodaemon" not in twistd or twistd.get("logger") or twistd.get("syslog"):
            return  # another program, or a log that is not ours to write
        in_foreground = twistd["nodaemon"] or twistd.get("debug")
        name = twistd.get("logfile") or (STDERR if in_foreground else "twistd.log")
        if name == "-" and not in_foreground:
            return  # which twistd refuses
        self.own_log = OwnLog(name, wanted.format, "debug" if self["log-decisions"] else wanted.level)
        self.signals.on(signal.SIGUSR1, self.own_log.reopen)


@paused()
def makeService(options: Options) -> IService:
    """The whole program, constructed and not started. Exits with 1 and every problem on stderr if it cannot be."""
    from apigw.config.errors import ConfigError
    from apigw.process import cores
    from apigw.process.upgrade import TRIAL

    config, options.config = options.config, None  # which lives as long as twistd
    assert config is not None
    workers = cores.workers(config.gateway.workers)
    if TRIAL in os.environ:
        _try(options, config, workers, os.environ[TRIAL])
    if HANDED in os.environ and workers == 1:
        sys.exit("apigw: gateway.workers has become 1 during an upgrade")
    try:
        root = _alone(options, config) if workers == 1 else _together(options, config, workers)
    except ConfigError as error:
        _refuse(error)
    options.signals.hold()
    return root if options.own_log is None else Logging(root, options.own_log)


def _try(options: Options, config: Config, workers: int, running: str) -> NoReturn:
    """Before an upgrade: do all that can fail, and end. ``running``: what the running program has told of itself."""
    from twisted.internet import reactor

    from apigw.config.errors import ConfigError
    from apigw.process.trial import try_out
    from apigw.process.upgrade import ABLE, may_follow

    try:
        try_out(config, options["config"], reactor)
        may_follow(config.gateway, workers, running)
        if options.own_log is not None:
            options.own_log.open()
    except (ConfigError, OSError) as error:
        _refuse(error)
    os.write(2, f"{ABLE}\n".encode())
    raise SystemExit(0)


def _alone(options: Options, config: Config) -> IService:
    """One process, which serves."""
    from twisted.internet import reactor

    from apigw.process.handover import without_details
    from apigw.process.place import Alone
    from apigw.process.program import Program

    place, log_decisions = Alone(reactor), bool(options["log-decisions"])
    lean = without_details(config)
    program = Program(reactor, time.time, options.signals, lean, options["config"], place, log_decisions)
    if options.own_log is not None:
        options.own_log.count_lost(program.metrics.lines_lost("daemon"))
    return program.root


def _together(options: Options, config: Config, workers: int) -> IService:
    """The master of several processes that serve."""
    from twisted.internet import reactor

    from apigw.process.upgrade import Handed
    from apigw.process.workers import master

    twistd: Any = options.parent
    handed = Handed.take(os.environ)
    pidfile = handed.pidfile if handed is not None else os.path.abspath(twistd["pidfile"]) if twistd["pidfile"] else ""
    return master(
        reactor,
        workers,
        config,
        options["config"],
        bool(options["log-decisions"]),
        options.signals,
        options.own_log,
        install_reactor,
        options.again(),
        pidfile,
        handed,
    )


def _refuse(error: Exception) -> NoReturn:
    print(error, file=sys.stderr)
    raise SystemExit(1)


def _command() -> list[str]:
    """How this program was started, without the arguments of twistd.

    That is the script alone where its first line names the interpreter: after an upgrade it may name another.
    """
    given = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    script = os.path.abspath(sys.argv[0])
    if len(given) == 2 and _first_line(script) == f"#!{given[0]}" and os.access(script, os.X_OK):
        return [script]
    return [sys.executable, *(os.path.abspath(each) if os.path.exists(each) else each for each in given[1:])]


def _first_line(file: str) -> str:
    try:
        with open(file, "rb") as script:
            return os.fsdecode(script.readline(4096).rstrip())
    except OSError:
        return ""
