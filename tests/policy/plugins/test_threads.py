"""How much of a plugin runs in threads, and for how long."""

from __future__ import annotations

from threading import Event
from typing import Any

from support.awaiting import wait_for, waiting
from support.later_threads import Later
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from apigw.policy.plugins.threads import AT_ONCE, Busy, Threads

reactor: Any = global_reactor


def error_of(done: Deferred[Any]) -> type[BaseException] | None:
    errors: list[Failure] = []
    done.addErrback(errors.append)
    return errors[0].type if errors else None


def test_sizes_are_bounded_together() -> None:
    """Also of what nobody waits for any more, as its thread is not free; one alone may be larger."""
    reactor = Later()
    threads = Threads(reactor, 10)
    large = threads.run(100, bytes, 1)
    assert error_of(threads.run(1, bytes, 1)) is Busy
    reactor.end()
    assert (large.result, threads.held) == (b"\0", 0)
    first, second = threads.run(5, bytes, 2), threads.run(5, bytes, 3)
    first.addErrback(lambda _: None).cancel()
    assert error_of(threads.run(1, bytes, 1)) is Busy
    reactor.end()
    third = threads.run(5, bytes, 4)
    reactor.end()
    reactor.end()
    assert (second.result, third.result, threads.held) == (bytes(3), bytes(4), 0)


def test_what_takes_too_long_is_busy() -> None:
    """Its thread runs on, and counts until it has ended; what it raises then is dropped."""
    reactor = Later()
    threads = Threads(reactor, 10, 0.5)
    done = threads.run(10, int, "no number")
    reactor.advance(0.6)
    assert error_of(done) is Busy
    assert error_of(threads.run(1, int)) is Busy
    reactor.end()
    assert threads.held == 0 and not reactor.getDelayedCalls()


def test_one_that_has_left_is_not_late() -> None:
    """Its time runs out without effect."""
    reactor = Later()
    done = Threads(reactor, 10, 0.5).run(1, int)
    done.addErrback(lambda _: None).cancel()
    reactor.advance(1)
    reactor.end()


def test_what_it_raises_is_told() -> None:
    """As by ``deferToThread``."""
    reactor = Later()
    done = Threads(reactor, 10, 0.5).run(1, int, "no number")
    reactor.end()
    assert error_of(done) is ValueError


def test_all_calls_of_a_plugin_are_bounded() -> None:
    """Whatever their sizes are, by the number of them."""
    reactor = Later()
    everything = Threads(reactor, 2)
    sized = Threads(reactor, 100, 0.5, everything)
    everything.run(1, int)
    sized.run(7, int)
    assert error_of(sized.run(7, int)) is Busy
    assert (sized.held, everything.held) == (7, 2)
    reactor.end()
    reactor.end()
    assert (sized.held, everything.held) == (0, 0)


@waiting
def test_what_is_no_longer_in_use_may_still_have_work() -> None:
    """Of exchanges that have begun with it: no work is forgotten, and afterwards there are no threads left."""
    threads = Threads(reactor, 100)
    go = Event()
    begun = [threads.run(1, go.wait) for _ in range(2 * AT_ONCE)]
    threads.stop()
    later = threads.run(1, int)
    go.set()
    assert all(wait_for(done) for done in begun)
    assert wait_for(later) == 0
    assert threads._pool is None
