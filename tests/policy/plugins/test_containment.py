"""What a plugin does wrong harms its own requests alone, and each mistake is named in the log."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger

from apigw.config.errors import ConfigError
from apigw.policy.plugins.guard import Counts, Guard
from apigw.policy.plugins.log import PluginLog
from apigw.policy.plugins.waits import within
from apigw.testing import Reply
from apigw.testing.memory import InMemory

WRONG = {
    "raises": "RuntimeError: broken",
    "exits": "SystemExit: 3",
    "interrupts": "KeyboardInterrupt",
    "recurses": "RecursionError",
    "text": "returned str, and not None",
    "number": "returned int, and not None",
    "never": "did not end within 1 s",
    "stubborn": "did not end within 1 s",
    "uncancellable": "did not end within 1 s",
    "late": "RuntimeError: broken",
    "asyncio": "asyncio does not run here",
    "lines": "has a control character",
    "length": "Content-Length is written by the gateway itself",
    "coding": "Transfer_Encoding is written by the gateway itself",
    "host": "view.rewrite(host=",
    "identity": "says who calls",
    "status": "99 is not a status of an answer",
    "twice": "respond was called before",
    "answers_number": "a body is bytes or text, not int",
    "replaces_by_text": "TypeError: ",  # compiled, it is mypyc's own
    "answers_length": "Content-Length is written by the gateway itself",
    "path": "cannot be sent",
    "refusal": "200 is not a status of a refusal",
    "early": "there is no answer yet",
}


def begin(apigw: Any, on_error: str = "closed", which: str = "Failing", **more: Any) -> InMemory:
    plugin = {"policy": f"./failing.py:{which}", "on_error": on_error}
    routes = [
        {"path": "/plain", "service": "main"},
        {"path": "/*", "service": "main", "use": ["wrong"]},
    ]
    gateway: InMemory = apigw({"wrong": plugin}, services={"main": Reply(200, {}, "fine")}, routes=routes, **more)
    return gateway


def series(gateway: InMemory, name: str, **labels: str) -> float:
    return gateway.metrics.registry.get_sample_value(f"gateway_plugin_{name}", {"plugin": "wrong", **labels}) or 0.0


@pytest.fixture(scope="module")
def modules() -> Any:
    """The module of the plugins, to look into."""
    return lambda: next(module for name, module in sys.modules.items() if name.startswith("apigw_plugin_failing"))


async def test_each_mistake_is_a_500_and_named(apigw: Any) -> None:
    """The service gets nothing, the log says what it was, and the next request is served."""
    gateway = begin(apigw)
    for number, (mistake, said) in enumerate(WRONG.items()):
        if number % 10 == 9:
            gateway.advance(11)  # tracebacks are bounded
        answer = await gateway.request("GET", f"/a?{mistake}=1")
        assert (answer.status, answer.json()["code"]) == (500, "policy_failed"), mistake
        assert said in gateway.log, mistake
        assert said not in answer.text
    assert not gateway.service.received
    assert (await gateway.request("GET", "/a")).text == "fine"
    assert series(gateway, "failures_total", kind="timeout") == 3
    assert series(gateway, "failures_total", kind="value") == 2
    assert series(gateway, "failures_total", kind="exception") == len(WRONG) - 5
    assert series(gateway, "calls_total") == len(WRONG) + 1


async def test_open_goes_on_and_undoes(apigw: Any) -> None:
    """With ``on_error: open`` the service gets the request as it was before the plugin."""
    gateway = begin(apigw, "open")
    for mistake in ("raises", "text", "never", "late", "twice", "replaces"):
        assert (await gateway.request("POST", f"/a?{mistake}=1", body=b"body")).text == "fine"
        received = gateway.service.received[-1]
        assert (received.get("x-before"), received.body) == (None, b"body")
    assert (await gateway.request("GET", "/a")).text == "fine"
    assert gateway.service.received[-1].get("x-before") == "1"


@pytest.mark.parametrize(("on_error", "instead"), [("closed", 500), ("open", 200)])
async def test_one_that_fails_all_the_time_is_cut_off(apigw: Any, on_error: str, instead: int) -> None:
    """After 50 failures in 10 s it is not called, until a probe succeeds."""
    gateway = begin(apigw, on_error)
    for _ in range(50):
        assert (await gateway.request("GET", "/a?raises=1")).status == instead
    assert series(gateway, "cut_off") == 1
    calls = series(gateway, "calls_total")
    for _ in range(5):
        assert (await gateway.request("GET", "/a")).status == instead
    assert (series(gateway, "calls_total"), series(gateway, "skipped_total")) == (calls, 5)
    assert (await gateway.request("GET", "/plain")).text == "fine"
    gateway.advance(1.1)
    assert (await gateway.request("GET", "/a?raises=1")).status == instead  # a probe, which fails
    assert series(gateway, "cut_off") == 1
    gateway.advance(1.1)
    assert (await gateway.request("GET", "/a")).status == 200
    assert series(gateway, "cut_off") == 0
    assert "failed 50 times in 10 s" in gateway.log
    assert "works again" in gateway.log
    assert gateway.log.count("Traceback") < 30


async def test_failures_that_are_seldom_cut_nothing_off(apigw: Any) -> None:
    """49 in 10 s, again and again."""
    gateway = begin(apigw)
    for _ in range(3):
        for _ in range(49):
            await gateway.request("GET", "/a?raises=1")
        gateway.advance(11)
    assert series(gateway, "cut_off") == 0
    assert (await gateway.request("GET", "/a")).status == 200


async def test_a_view_ends_with_its_exchange(apigw: Any, modules: Any) -> None:
    """Who keeps it gets an error, and nothing of another exchange."""
    gateway = begin(apigw)
    assert (await gateway.request("GET", "/a?keeps=1")).status == 200
    (view,) = modules().Kept.views
    modules().Kept.views.clear()
    for use in (
        lambda: view.path,
        lambda: view.request.get("X-A"),
        lambda: view.request.set("X-A", "b"),
        lambda: view.rewrite(path="/b"),
        lambda: view.answer.status,
        lambda: view.respond(200),
        lambda: view.state,
        lambda: view.read_body(),
    ):
        with pytest.raises(RuntimeError, match="has ended"):
            use()


async def test_another_thread_is_turned_away(apigw: Any) -> None:
    """It gets an error, and has changed nothing."""
    gateway = begin(apigw)
    await gateway.request("GET", "/a?thread=1")
    got = gateway.service.received[-1]
    assert "a view is for the reactor's thread" in str(got.get("x-said"))
    assert got.get("x-thread") is None


async def test_one_that_blocks_is_named(apigw: Any) -> None:
    """With its method, once a second."""
    gateway = begin(apigw)
    await gateway.request("GET", "/a?blocks=1")
    await gateway.request("GET", "/a?blocks=1")
    said = r"the plugin wrong has kept all other requests waiting for \d+ ms, in on_request"
    assert len(re.findall(said, gateway.log)) == 1
    assert series(gateway, "blocked_total") == 2


async def test_time_is_told_of_each(apigw: Any) -> None:
    """Of several in a row, of which one blocks or waits, the others are not blamed."""
    wrong, idle = ({"policy": f"./failing.py:{name}"} for name in ("Failing", "Idle"))
    gateway = apigw({"before": idle, "wrong": wrong, "after": idle}, services={"main": Reply(200, {}, "fine")})
    assert (await gateway.request("GET", "/a?blocks=1")).text == "fine"
    assert (await gateway.request("GET", "/a?waits=1")).text == "fine"
    value = gateway.metrics.registry.get_sample_value
    for name, blocked in (("before", 0), ("wrong", 1), ("after", 0)):
        assert value("gateway_plugin_calls_total", {"plugin": name}) == 2
        assert value("gateway_plugin_blocked_total", {"plugin": name}) == blocked
        assert (value("gateway_plugin_seconds_total", {"plugin": name}) > 0.05) == bool(blocked)


@pytest.mark.parametrize(("which", "path"), [("Failing", "/a?raises=1"), ("Answering", "/raises")])
async def test_a_failure_names_the_request(apigw: Any, which: str, path: str) -> None:
    """Who has the id of an answer, or of a line of the access log, finds the traceback."""
    gateway = begin(apigw, which=which)
    answer = await gateway.request("GET", path)
    assert re.search(rf"\b{answer.headers['x-request-id']}: the plugin wrong failed in on_", gateway.log)


async def test_a_flood_of_lines_is_bounded(apigw: Any) -> None:
    """A hundred in 10 s; the others are counted, and told of."""
    gateway = begin(apigw)
    await gateway.request("GET", "/a?floods=1")
    assert gateway.log.count("plugin wrong: line ") == 100
    assert series(gateway, "log_lines_lost_total") == 900
    gateway.advance(11)
    await gateway.request("GET", "/a?floods=1")
    assert "has written 900 lines too many" in gateway.log


async def test_mistakes_with_answers(apigw: Any) -> None:
    """They are 500, or with ``open`` the answer as it was; an end that fails is nothing but a line."""
    gateway = begin(apigw, which="Answering")
    for path in ("/raises", "/text", "/lines", "/request"):
        answer = await gateway.request("GET", path)
        assert (answer.status, answer.json()["code"]) == (500, "policy_failed")
    assert (await gateway.request("GET", "/ends")).text == "fine"
    assert "the plugin wrong failed in on_end" in gateway.log
    opened = begin(apigw, "open", "Answering")
    for path in ("/raises", "/text", "/lines", "/request", "/ends"):
        assert (await opened.request("GET", path)).text == "fine"


async def test_mistakes_with_bodies(apigw: Any) -> None:
    """Nothing that is broken looks complete; with ``open``, what was not changed passes."""
    gateway = begin(apigw, which="Body")
    for path in ("/text", "/raises"):
        assert (await gateway.request("GET", path)).status == 500
    opened = begin(apigw, "open", "Body")
    for path in ("/text", "/raises", "/else"):
        assert (await opened.request("GET", path)).text == "fine"


async def _endless() -> None:
    while True:
        try:
            await Deferred()
        except Exception:
            continue


@pytest.mark.parametrize("how", ["never", "endless", "raises"])
def test_what_cannot_be_cancelled_is_not_waited_for(how: str) -> None:
    """As at the end of the gateway, which would not come."""
    clock, log = Clock(), PluginLog("p", lambda: 0.0)
    guard = Guard(False, 1.0, Counts(), log, clock)
    waited: Deferred[Any] = Deferred((lambda _: sys.exit(4)) if how == "raises" else None)
    if how == "endless":
        waited = Deferred.fromCoroutine(_endless())
    errors: list[Any] = []
    within(5.0, waited, guard, "stop").addErrback(errors.append)
    clock.advance(6)
    assert [error.getErrorMessage() for error in errors] == ["did not end within 5 s"]


def test_a_gateway_that_cannot_begin_hears_no_more(tmp_path: Path) -> None:
    """Its log ends with it, as that of a test that has ended."""
    gateway: Any = InMemory.__new__(InMemory)
    with pytest.raises(ConfigError):
        gateway.__init__(tmp_path, tmp_path, {"p": "nothing"})
    Logger().info("what comes later")
    assert gateway.log == ""
