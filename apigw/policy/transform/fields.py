# Compiled: see docs/decisions/compiled.md
"""Fields that rules write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

from mypy_extensions import i64

from apigw import errors
from apigw.contract.exchange import Exchange
from apigw.errors import GatewayError
from apigw.policy.transform.template import Template, compiled
from apigw.routing.pattern import Pattern


@final
class Field:
    def __init__(self, name: bytes, value: Template) -> None:
        self.name = name
        self.value = value
        constant = value.constant
        self.pair: Any = None if constant is None else (name, constant)
        """Name and value, if that is the same for every exchange. A pair of its own would be made anew, compiled."""


@final
class Fields:
    """The fields of one list of rules. Those that are taken from an exchange have up to ``most`` bytes together."""

    def __init__(self, fields: Iterable[Field], most: int) -> None:
        self._fields = list(fields)
        self._most: i64 = most
        pairs = [field.pair for field in self._fields]
        self.same: Any = None if None in pairs else pairs
        """All of them as a list, if they are the same for every exchange."""

    def __bool__(self) -> bool:
        return bool(self._fields)

    def write(self, exchange: Exchange, out: list[Any], refuse: bool) -> None:
        """Append the fields for this exchange to ``out``, without those whose value is missing.

        With ``refuse`` it raises a ``GatewayError`` for values that cannot be sent, else they are left out.
        """
        left: i64 = self._most
        for field in self._fields:
            pair = field.pair
            if pair is None:
                try:
                    value = field.value.text(exchange)
                    if value is None:
                        continue
                    left -= len(value)
                    if left < 0:
                        raise errors.HeadersTooLarge("The headers that this request would get are too large.")
                except GatewayError:
                    if refuse:
                        raise
                    continue
                pair = (field.name, value)
            out.append(pair)


def fields_of(pairs: Iterable[tuple[str, str]], pattern: Pattern, most: int) -> Fields:
    """The fields of rules, names and values, on a route with this ``pattern``."""
    return Fields([Field(name.lower().encode("ascii"), compiled(value, pattern)) for name, value in pairs], most)
