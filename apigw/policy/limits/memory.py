# Compiled: see docs/decisions/compiled.md
"""The store in memory: counts in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

from twisted.internet.interfaces import IReactorTime

from apigw.policy.limits.arithmetic import Checks, Decision, Limit, Standing, State, allow, decide
from apigw.policy.limits.concurrent import HELD, Claim, ConcurrentLimit, Places, Want
from apigw.policy.limits.local import LocalStore

MAX_KEYS: Final = 1_000_000
"""Maximum number of keys. Measured: each takes some 150 bytes, and with ``log`` 8 more for each further request."""

# With this many tables a full store leaves each just below the size at which a dict doubles its room.
_TABLES: Final = 192
_ONE_TABLE_UP_TO: Final = 16_384

Table = dict[bytes, State]


class MemoryStore(LocalStore):
    """Counts in this process, for at most ``max_keys`` keys; beyond that the least recently used are removed.

    A large store has several tables, so that no table takes long to grow or to clean. Removed keys are the least
    recently used of the new key's table. Expired keys are removed one table at a time.
    """

    def __init__(self, clock: IReactorTime, now: Callable[[], float], max_keys: int = MAX_KEYS) -> None:
        super().__init__(clock, now)
        self._max_keys = max_keys
        self._size = 0
        # Of what is kept: the limit by its id, and how many keys it has.
        self._limits: dict[bytes, Limit] = {}
        self._keys: dict[bytes, int] = {}
        # Each in the order of last use: what is looked at is taken out and put back, as a dict keeps the order in which
        # its keys came.
        self._tables: list[Table] = [{} for _ in range(1 if max_keys <= _ONE_TABLE_UP_TO else _TABLES)]
        self._next_swept = 0
        self.places = Places()
        """Those that are taken now. They are no keys: nothing of them is swept, or leaves for want of room."""

    def __len__(self) -> int:
        return self._size

    def keys(self) -> Mapping[bytes, int]:
        return self._keys

    def taken(self, limit: ConcurrentLimit) -> tuple[int, int]:
        return self.places.of(limit)

    def check(self, checks: Checks, at: float | None = None) -> Decision:
        if len(checks) == 1:
            limit, key = checks[0]
            return self.check_one(limit, key, at)
        moment = self._moment(at)
        states: list[State | None] = []
        standings: list[Standing] = []
        allowed = True
        for limit, key in checks:
            name = limit.id + key
            state = self._table(name).pop(name, None)
            standing = limit.look(state, moment)
            if standing.used >= limit.limit:
                allowed = False
            states.append(state)
            standings.append(standing)
        for place, (limit, key) in enumerate(checks):
            name = limit.id + key
            table = self._table(name)
            state = states[place]
            if allowed:
                table[name] = limit.count(state, standings[place])
                if state is None:
                    self._added(limit, table)
            elif state is not None:
                table[name] = state
        return decide(standings, moment, 1, self._ahead(moment))

    def check_one(self, limit: Limit, key: bytes, at: float | None = None) -> Decision:
        moment = self._moment(at)
        ahead = self._ahead(moment)
        name = limit.id + key
        table = self._tables[hash(name) % len(self._tables)]
        state = table.pop(name, None)
        standing = limit.look(state, moment)
        if standing.used >= limit.limit:
            table[name] = state  # not None: a new key has room
            return decide([standing], moment, 1, ahead)
        table[name] = limit.count(state, standing)
        if state is None:
            self._added(limit, table)
        return allow(standing, 1, ahead)

    def admit_within(
        self, checks: Checks, claim: Claim, tested: list[Want], at: float | None = None
    ) -> Decision | None:
        claim.full = self.places.full(tested)
        decision: Decision | None = None
        if checks:
            decision = self.check(checks, at) if claim.full is None else self.peek(checks, at)
        if claim.full is None and (decision is None or decision.allowed):
            self.places.take(claim.wanted)
            claim.state = HELD
        return decision

    def take(self, claim: Claim) -> None:
        self.places.take(claim.wanted)

    def free(self, claim: Claim) -> None:
        self.places.free(claim.wanted)

    def peek(self, checks: Checks, at: float | None = None) -> Decision:
        moment = self._moment(at)
        standings = []
        for limit, key in checks:
            name = limit.id + key
            standings.append(limit.look(self._table(name).get(name), moment))
        return decide(standings, moment, 0, self._ahead(moment))

    def sweep(self, at: float | None = None) -> None:
        """Remove the expired keys of the next table, and free their memory."""
        moment = self._moment(at)
        place = self._next_swept
        self._next_swept = (place + 1) % len(self._tables)
        table = self._tables[place]
        limits = self._limits
        dead = [name for name, state in table.items() if limits[name[:8]].over(state, moment)]
        self._drop(dead, table)
        if len(dead) > len(table):
            self._tables[place] = dict(table)

    def _table(self, name: bytes) -> Table:
        return self._tables[hash(name) % len(self._tables)]

    def _added(self, limit: Limit, table: Table) -> None:
        self._limits[limit.id] = limit
        self._keys[limit.id] = self._keys.get(limit.id, 0) + 1
        self._size += 1
        if self._size > self._max_keys:
            # Several at once from a large table: finding the first steps over the places of those that have left.
            self._drop(list(islice(table, 1 + len(table) // 256)), table)

    def _drop(self, names: list[bytes], table: Table) -> None:
        for name in names:
            del table[name]
        self._size -= len(names)
        for identity, gone in Counter(name[:8] for name in names).items():
            self._keys[identity] -= gone
            if not self._keys[identity]:
                del self._keys[identity], self._limits[identity]
