"""The threads that hash secrets, and who gets a place in them (docs/decisions/secret-hashing.md)."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from apigw.contract.address_groups import block, network
from apigw.errors import Overloaded

HASHING_NICE = 10
UNKNOWN = ""
"""The id of everybody who does not exist."""

Work = Callable[[], bool]
"""Says whether a secret is right, after some 40 ms."""


class _PatientThread(threading.Thread):
    """A thread with a high niceness: on a busy core, it gets about a tenth of the reactor's share."""

    def run(self) -> None:
        if sys.platform == "linux":  # on other systems, niceness applies to the whole process
            with suppress(OSError):
                thread = threading.get_native_id()
                os.setpriority(os.PRIO_PROCESS, thread, max(HASHING_NICE, os.getpriority(os.PRIO_PROCESS, thread)))
        super().run()


class _PatientPool(ThreadPool):
    threadFactory = _PatientThread


@define(eq=False)
class _Job:
    """``network`` and ``block`` are the client's, as of ``address_groups``; empty where no client is bounded."""

    work: Work
    id: str
    network: str
    block: str
    came: float
    answer: Deferred[bool] = field(init=False)


class SecretThreads:
    """A small thread pool for hashing, separate from the reactor's, with a short queue, in the reactor's thread.

    Ids take turns, so that guesses at one secret delay nobody else; all that do not exist are one. An id may have
    ``each`` places, and a client's address ``each_caller``. If all places are taken, the id with the most loses one to
    another that has fewer; if all of an id are, the block of addresses with the most does.
    """

    def __init__(self, reactor: Any, threads: int = 2, queue: int = 32, each: int = 8, each_caller: int = 4) -> None:
        self._reactor = reactor
        self._pool = _PatientPool(minthreads=0, maxthreads=threads, name="apigw-secrets")
        self._started = False
        self._idle = threads
        self._room = queue
        self._each = each
        self._each_caller = each_caller
        self._queues: OrderedDict[str, deque[_Job]] = OrderedDict()
        """Those who wait, by id; whose turn is next is the first."""
        self._taken = Counter[str]()
        self._callers = Counter[str]()
        self._took = 0.05
        """Seconds that the last one took, with its wait."""

    def start(self) -> None:
        self._started = True
        self._pool.start()

    def stop(self) -> None:
        """Stop when what is being hashed is done. No effect if it is not running."""
        if self._started:
            self._started = False
            self._queues.clear()
            self._pool.stop()

    def run(self, work: Work, id: str, caller: bytes = b"") -> Deferred[bool]:
        """Run ``work()`` in a thread for ``id``, or ``UNKNOWN``. If it is cancelled while it waits, it is not started.

        ``caller`` is the client's address; without it, it is not bounded. Raises, or fires with, ``Overloaded`` where
        there is no place. For ``UNKNOWN`` it then fires with False instead, as late as if it had been hashed: so no
        answer tells which ids exist.
        """
        job = _Job(work, id, network(caller), block(caller), self._reactor.seconds())
        if caller and self._callers[job.network] >= self._each_caller:
            raise _overloaded()
        if not self._has_room(job):
            if id == UNKNOWN:
                return self._as_if_hashed()
            raise _overloaded()
        job.answer = Deferred(lambda _: self._leave(job))
        self._taken[id] += 1
        self._callers[job.network] += 1
        self._queues.setdefault(id, deque()).append(job)
        self._begin()
        return job.answer

    def _has_room(self, job: _Job) -> bool:
        """Whether there is a place for it, perhaps that of another."""
        queue = self._queues.get(job.id, ())
        if self._taken[job.id] >= self._each:
            blocks = Counter(each.block for each in queue)
            most, count = max(blocks.items(), key=lambda item: item[1], default=("", 0))
            if count <= blocks[job.block] + 1:
                return False
            self._drop(next(each for each in reversed(queue) if each.block == most))
            return True
        if self._idle or sum(map(len, self._queues.values())) < self._room:
            return True
        longest = max(self._queues.values(), key=len)
        if len(longest) <= len(queue) + 1:
            return False
        self._drop(longest[-1])
        return True

    def _drop(self, job: _Job) -> None:
        self._leave(job)
        if job.id == UNKNOWN:
            self._as_if_hashed().addCallback(partial(self._told, job))
        else:
            job.answer.errback(_overloaded())

    def _told(self, job: _Job, right: bool) -> None:
        if not job.answer.called:
            job.answer.callback(right)

    def _leave(self, job: _Job) -> None:
        """It waits no more. No effect if it is being hashed."""
        queue = self._queues.get(job.id, ())
        if job in queue:
            assert isinstance(queue, deque)
            queue.remove(job)
            if not queue:
                del self._queues[job.id]
            self._give_back(job)

    def _give_back(self, job: _Job) -> None:
        for taken, key in ((self._taken, job.id), (self._callers, job.network)):
            taken[key] -= 1
            if not taken[key]:
                del taken[key]

    def _begin(self) -> None:
        while self._idle and self._queues:
            id, queue = next(iter(self._queues.items()))
            job = queue.popleft()
            if queue:
                self._queues.move_to_end(id)
            else:
                del self._queues[id]
            self._idle -= 1
            self._pool.callInThreadWithCallback(partial(self._ended_in_thread, job), job.work)

    def _ended_in_thread(self, job: _Job, success: bool, result: Any) -> None:
        self._reactor.callFromThread(self._ended, job, result)

    def _ended(self, job: _Job, result: bool | Failure) -> None:
        self._took = self._reactor.seconds() - job.came
        self._idle += 1
        self._give_back(job)
        self._begin()
        if not job.answer.called:
            job.answer.callback(result)

    def _as_if_hashed(self) -> Deferred[bool]:
        timer: Any = None  # compiled, its type would not be known
        answer: Deferred[bool] = Deferred(lambda _: timer.cancel())
        timer = self._reactor.callLater(self._took, answer.callback, False)
        return answer


def _overloaded() -> Overloaded:
    return Overloaded("Too many secrets are waiting to be checked.", [(b"retry-after", b"1")])
