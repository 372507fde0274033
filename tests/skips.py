"""With APIGW_SKIPS=strict, as in CI, a test that is skipped for a reason that is not in this list fails the run."""

from __future__ import annotations

import os

import pytest

ALLOWED = (
    "only a wheel is compiled",
    "nobody can look into what is compiled",
    "what is compiled sets its attributes unseen",
    "what is compiled knows an actor from the real part",  # an argument of another type is a TypeError there
    "this user reads everything",  # CI runs as root
    "only root gives files away",  # elsewhere, nobody does
    "this server was built without TLS",  # which redis-server of Debian is not
    "chromium is not installed",  # 300 MB, for six tests of the status page
    "node is not installed",
    "kubectl is not installed",
    "rotel has no wheel for this Python",
    "npm cannot reach a registry",
    "systemd-analyze is",  # not installed, or too old
    "systemd cannot be booted here",  # which needs namespaces, root and cgroups of version 2
)
"""How the reasons begin."""


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


class StrictSkips:
    """A plugin of pytest."""

    def __init__(self) -> None:
        self.unexpected: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail") and not reason_of(report).startswith(ALLOWED):
            self.unexpected[report.nodeid] = reason_of(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unexpected and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for test, reason in self.unexpected.items():
            terminalreporter.write_line(f"UNEXPECTED SKIP {test}: {reason}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    # The workers of xdist report to the one that is judged.
    if os.environ.get("APIGW_SKIPS") == "strict" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(StrictSkips())
