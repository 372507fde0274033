"""What methods of plugins return that has to be waited for: Deferreds, and coroutines that await Deferreds."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from time import perf_counter
from types import CoroutineType
from typing import Any

from twisted.internet.defer import Deferred

from apigw.policy.plugins.guard import Guard


def begun(result: Any, guard: Guard, method: str) -> Any:
    """The value of a coroutine that awaits nothing, without a Deferred; a Deferred where it does; else ``result``.

    Raises what the coroutine raises. ``guard`` is told the seconds of each further step of ``method``.
    """
    if type(result) is not CoroutineType:
        return result
    try:
        awaited = result.send(None)
    except StopIteration as ended:
        return ended.value
    return Deferred.fromCoroutine(_rest(result, awaited, guard, method))


async def _rest(coroutine: Coroutine[Any, Any, Any], awaited: Any, guard: Guard, method: str) -> Any:
    """Go on with a coroutine that awaits something."""
    while True:
        try:
            if not isinstance(awaited, Deferred):
                raise TypeError(f"it awaits {type(awaited).__name__}, and not a Deferred: asyncio does not run here")
            result = await awaited
        except GeneratorExit:  # nobody waits any more
            coroutine.close()
            raise
        except BaseException as error:
            send: Callable[[Any], Any] = coroutine.throw
            value: Any = error
        else:
            send, value = coroutine.send, result
        began = perf_counter()
        try:
            awaited = send(value)
        except StopIteration as ended:
            return ended.value
        finally:
            guard.spent(perf_counter() - began, method)


def give_up(waited: Deferred[Any], guard: Guard, method: str) -> None:
    """Cancel what nobody waits for any more. That may raise: it is code of the plugin, or of a library."""
    try:
        waited.cancel()
    except BaseException as error:
        guard.log.failed(f"{method}, as it was cancelled", error)


def within(seconds: float, waited: Deferred[Any], guard: Guard, method: str) -> Deferred[Any]:
    """As ``waited``, but fails after so many ``seconds``, whether it can be cancelled or not."""
    outer: Deferred[Any] = Deferred()

    def late() -> None:
        give_up(waited, guard, method)
        outer.errback(TimeoutError(f"did not end within {seconds:g} s"))

    timer = guard.clock.callLater(seconds, late)

    def ended(result: Any) -> None:
        if timer.active():  # else it is late, or has ended by being cancelled
            timer.cancel()
            outer.callback(result)

    waited.addBoth(ended)
    return outer
