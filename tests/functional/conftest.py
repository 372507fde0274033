"""Fixtures: a service that does as a test says, and daemons in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.client import Answer
from support.daemon import Daemon, Document
from support.guarded import Guarded
from support.services import Service, echo

Start = Callable[..., Daemon]
Get = Callable[..., Answer]


def check_log(daemon: Daemon) -> None:
    """Whatever a test did to it, the daemon must not have been surprised."""
    log = daemon.log
    assert "Traceback" not in log, log
    assert "Unhandled" not in log, log


@pytest.fixture(scope="module")
def module_service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


@pytest.fixture
def service(module_service: Service) -> Iterator[Service]:
    """The service behind the module's gateway. It echoes unless the test says otherwise, and forgets between tests."""
    module_service.behave = echo
    module_service.requests.clear()
    module_service.failures.clear()
    yield module_service
    module_service.close_connections()
    assert module_service.failures == []


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts daemons of the test's own, and ends them with it."""
    with ExitStack() as stack:

        def start(document: Document, *arguments: str, executed: bool = False) -> Daemon:
            directory = tmp_path / f"gateway{len(list(tmp_path.iterdir()))}"
            daemon = stack.enter_context(Daemon(directory, document, *arguments, executed=executed))
            stack.callback(check_log, daemon)
            return daemon

        yield start


@pytest.fixture(scope="module")
def in_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts the daemon that a module's tests share; at the end it must have logged no traceback."""
    with ExitStack() as stack:

        def start(document: Document, *arguments: str, executed: bool = False) -> Daemon:
            directory = tmp_path_factory.mktemp("gateway")
            daemon = stack.enter_context(Daemon(directory, document, *arguments, executed=executed))
            stack.callback(check_log, daemon)
            return daemon

        yield start


@pytest.fixture(scope="module")
def guarded(in_front: Start, module_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A gateway that asks who calls, for a module's tests; at the end nothing secret may be written anywhere."""
    guarded = Guarded(tmp_path_factory.mktemp("keys"), module_service)
    guarded.daemon = in_front(guarded.document, "--log-decisions")
    yield guarded
    guarded.has_kept_silent()


@pytest.fixture
def get(guarded: Guarded, service: Service) -> Get:
    """GET through it; see ``Guarded.get``."""
    return guarded.get
