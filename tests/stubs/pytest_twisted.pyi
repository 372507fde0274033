# What the tests use of it: it has no annotations of its own.
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

_T = TypeVar("_T")
_Test = TypeVar("_Test", bound=Callable[..., Coroutine[Any, Any, None]])
_Fixture = TypeVar("_Fixture", bound=Callable[..., AsyncIterator[Any]])

def ensureDeferred(test: _Test) -> _Test: ...
def async_yield_fixture(fixture: _Fixture) -> _Fixture: ...
def blockon(deferred: Deferred[_T]) -> _T: ...
