"""What pytest gets with the gateway: the fixture ``apigw``, tests that are coroutines, and ``--apigw-daemon``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from apigw.testing.gateway import Gateway


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("apigw").addoption(
        "--apigw-daemon",
        action="store_true",
        help="run tests of plugins against `twistd apigw` and sockets, instead of in memory",
    )


class Begin:
    """The fixture: ``apigw(plugins, services=…, use=…, routes=…, …)`` begins a gateway, which ends with the test.

    ``plugins`` is the section of that name, or only policies, such as ``["hello:Hello"]``. ``services`` are functions
    from ``Received`` to ``Reply``, or a ``Reply``, by name; without them there is one that says what it got. ``routes``
    are those of the configuration; without them every request goes to the first service and meets the plugins in
    ``use``, or all. What follows are other sections of the configuration.
    """

    def __init__(self, request: pytest.FixtureRequest, make: Any, directory: Any) -> None:
        self._request = request
        self._make = make
        self._directory = directory
        self.begun: list[Gateway] = []

    def __call__(self, plugins: Any = (), **more: Any) -> Gateway:
        directory = self._directory / f"gateway-{len(self.begun)}"
        directory.mkdir()
        gateway: Gateway = self._make(directory, self._request.path.parent, plugins, **more)
        self.begun.append(gateway)
        return gateway


@pytest.fixture
def apigw(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Begin]:
    if request.config.getoption("--apigw-daemon"):
        from apigw.testing.daemon import InDaemon as make
    else:
        from apigw.testing.memory import InMemory as make  # type: ignore[assignment]  # one or the other
    begin = Begin(request, make, tmp_path)
    yield begin
    for gateway in begin.begun:
        gateway.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that is a coroutine, and uses the fixture, is run to its end: what it awaits is there at once."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj) or "apigw" not in pyfuncitem.funcargs:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    coroutine = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    try:
        coroutine.send(None)
    except StopIteration:
        return True
    coroutine.close()
    raise RuntimeError("a test with the fixture apigw awaits requests to a gateway, and nothing else")
