"""The threads that hash secrets, and who gets a place in them (docs/decisions/secret-hashing.md)."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
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
UNKNOWN = "\0"
"""With it begins the id of who does not exist, before the name that was given."""

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
    """``turn`` is the id that takes its turn: its own, or ``UNKNOWN`` of all who do not exist. ``network`` and
    ``block`` are the client's, as of ``address_groups``; empty where no client is bounded."""

    work: Work
    id: str
    turn: str
    network: str
    block: str
    came: float
    answer: Deferred[bool] = field(init=False)
    timer: Any = None
    """That of one who has no place, and is told nothing of that."""


class SecretThreads:
    """A small thread pool for hashing, separate from the reactor's, with a short queue, in the reactor's thread.

    Ids take turns, so that guesses at one secret delay nobody else; all that do not exist are one, with as many places
    as an id. An id may have ``each`` under way, whether it exists or not, and a client's address ``each_caller``. If
    all places are taken, the id with the most loses one to another that has fewer; if all of an id are, the block of
    addresses with the most does.
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
        self._pretended: dict[str, list[_Job]] = {}
        """Those who do not exist and have no place, by id."""
        self._taken = Counter[str]()
        """What is under way, by id; of ``UNKNOWN`` alone, the places of all who do not exist."""
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
            for pretended in self._pretended.values():
                for job in pretended:
                    job.timer.cancel()
            self._pretended.clear()
            self._pool.stop()

    def run(self, work: Work, id: str, caller: bytes = b"") -> Deferred[bool]:
        """Run ``work()`` in a thread for ``id``. If it is cancelled while it waits, it is not started.

        ``caller`` is the client's address; without it, it is not bounded. Raises, or fires with, ``Overloaded`` where
        there is no place. One who does not exist (``UNKNOWN``) and has no place is told False instead, as late as if it
        had been hashed; what an id, or an address, has too much of is refused alike. No answer tells which ids exist.
        """
        turn = UNKNOWN if id.startswith(UNKNOWN) else id
        job = _Job(work, id, turn, network(caller), block(caller), self._reactor.seconds())
        if caller and self._callers[job.network] >= self._each_caller:
            raise _overloaded()
        if self._taken[id] >= self._each and not self._replaces(job):
            raise _overloaded()
        has_place = self._has_place(job)
        if not has_place and turn != UNKNOWN:
            raise _overloaded()
        job.answer = Deferred(lambda _: self._leave(job))
        self._taken[id] += 1
        self._callers[job.network] += 1
        if has_place:
            if turn == UNKNOWN:
                self._taken[UNKNOWN] += 1
            self._queues.setdefault(turn, deque()).append(job)
            self._begin()
        else:
            self._pretend(job)
        return job.answer

    def _replaces(self, job: _Job) -> bool:
        """Whether it is in place of another of its id, from a block of addresses that has more."""
        queue: Sequence[_Job] = self._queues.get(job.turn, ())
        waiting = [each for each in (*queue, *self._pretended.get(job.id, ())) if each.id == job.id]
        blocks = Counter(each.block for each in waiting)
        most, count = max(blocks.items(), key=lambda item: item[1], default=("", 0))
        if count <= blocks[job.block] + 1:
            return False
        self._refuse(next(each for each in reversed(waiting) if each.block == most))
        return True

    def _has_place(self, job: _Job) -> bool:
        """Whether there is a place for it, perhaps that of another."""
        if job.turn == UNKNOWN and self._taken[UNKNOWN] >= self._each:
            return False
        if self._idle or sum(map(len, self._queues.values())) < self._room:
            return True
        longest = max(self._queues.values(), key=len)
        if len(longest) <= len(self._queues.get(job.turn, ())) + 1:
            return False
        last = longest[-1]
        if last.turn == UNKNOWN:
            self._leave_queue(last)
            self._taken[UNKNOWN] -= 1
            self._pretend(last)
        else:
            self._refuse(last)
        return True

    def _refuse(self, job: _Job) -> None:
        self._leave(job)
        job.answer.errback(_overloaded())

    def _pretend(self, job: _Job) -> None:
        """Answer as late as if it had been hashed."""
        self._pretended.setdefault(job.id, []).append(job)
        job.timer = self._reactor.callLater(self._took, self._end_pretence, job)

    def _end_pretence(self, job: _Job) -> None:
        self._leave(job)
        job.answer.callback(False)

    def _leave(self, job: _Job) -> None:
        """It waits no more. No effect if it is being hashed, or has left."""
        pretended = self._pretended.get(job.id, [])
        if job in pretended:
            pretended.remove(job)
            if not pretended:
                del self._pretended[job.id]
            if job.timer.active():
                job.timer.cancel()
            self._give_back(job, 0)
        elif self._leave_queue(job):
            self._give_back(job)

    def _leave_queue(self, job: _Job) -> bool:
        queue = self._queues.get(job.turn)
        if queue is None or job not in queue:
            return False
        queue.remove(job)
        if not queue:
            del self._queues[job.turn]
        return True

    def _give_back(self, job: _Job, places: int = 1) -> None:
        unknown = places if job.turn == UNKNOWN else 0
        for taken, key, number in (
            (self._taken, job.id, 1),
            (self._taken, UNKNOWN, unknown),
            (self._callers, job.network, 1),
        ):
            taken[key] -= number
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


def _overloaded() -> Overloaded:
    return Overloaded("Too many secrets are waiting to be checked.", [(b"retry-after", b"1")])
