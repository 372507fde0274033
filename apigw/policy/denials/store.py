"""Where denials are kept: in this process, or for several workers in the shared page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from apigw.policy.denials.denial import MOST, Denial, unpacked
from apigw.shared.page import Page
from apigw.shared.records import FOR_EVER, Busy

_OWNER = b"denials"


class Full(Exception):
    """There is no room for one more; or it cannot be had at present."""


class Store(Protocol):
    """Denials by their names, those that are over included."""

    def changed(self) -> bool:
        """Whether another process has changed something since ``all`` was called last."""

    def all(self) -> Mapping[bytes, Denial]:
        """Raises ``Full`` if they cannot be read now."""

    def put(self, denials: Iterable[Denial]) -> None:
        """Store these, in place of those of the same names. Raises ``Full``."""

    def remove(self, names: Iterable[bytes]) -> None:
        """Raises ``Full``."""


class InProcess:
    """For one worker."""

    def __init__(self) -> None:
        self._all: dict[bytes, Denial] = {}

    def changed(self) -> bool:
        return False

    def all(self) -> Mapping[bytes, Denial]:
        return dict(self._all)

    def put(self, denials: Iterable[Denial]) -> None:
        for denial in denials:
            if denial.name not in self._all and len(self._all) >= MOST:
                raise Full
            self._all[denial.name] = denial

    def remove(self, names: Iterable[bytes]) -> None:
        for name in names:
            self._all.pop(name, None)


class InPage:
    """For several workers. They outlive each of them.

    One that dies while it writes leaves none: ``changed`` tells, and another puts back what it still knows.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._records = page.denials
        self._seen = -1

    def changed(self) -> bool:
        return self._page.denial_changes != self._seen

    def all(self) -> Mapping[bytes, Denial]:
        changes = self._page.denial_changes
        try:
            records = self._records.all()
        except Busy:
            raise Full from None
        self._seen = changes
        found = (unpacked(record) for record in records)
        return {denial.name: denial for denial in found if denial is not None}

    def put(self, denials: Iterable[Denial]) -> None:
        try:
            for denial in denials:
                if len(self._records) >= MOST and self._records.get(denial.name, 0) is None:
                    raise Full
                self._records.put(denial.name, _OWNER, denial.packed(), FOR_EVER, 0)
        except Busy:
            raise Full from None
        finally:
            self._page.denials_changed()

    def remove(self, names: Iterable[bytes]) -> None:
        try:
            for name in names:
                self._records.remove(name)
        except Busy:
            raise Full from None
        finally:
            self._page.denials_changed()

    @property
    def lost(self) -> bool:
        """Whether the page has none, though nobody has removed them."""
        return not len(self._records)
