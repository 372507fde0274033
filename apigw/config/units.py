"""Durations, sizes and shares as people write them, in seconds, bytes and fractions, and back; numbers of things."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_MEANT = {"k": "KiB", "m": "MiB", "g": "GiB"}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h)")
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)?")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)%")
_NEAR_SIZE = re.compile(r"([0-9]{1,15})\s*([A-Za-z]{1,3})")


def seconds(value: object) -> float:
    """``250ms``, ``30s``, ``1.5m`` or ``1h`` in seconds. Only 0 may have no unit.

    Raises ``ValueError`` with a sentence fragment that follows the value: "has no unit: write 5s".
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value == 0:
            return 0.0
        raise ValueError(f"has no unit: write {value}s" if value > 0 else "is not a duration: it is less than 0")
    if isinstance(value, str):
        if match := _DURATION.fullmatch(value):
            return round(float(match[1]) * _SECONDS[match[2]], 6)
        if re.fullmatch(r"[0-9]{1,9}", value):
            return seconds(int(value))
        if days := re.fullmatch(r"([0-9]{1,4}) ?d(?:ays?)?", value):
            raise ValueError(f"is not a duration: write {24 * int(days[1])}h")
    raise ValueError("is not a duration: write it like 250ms, 30s, 5m or 1h")


def size(value: object) -> int:
    """``64KiB``, ``10MiB``, ``1GiB`` or a plain number, in bytes. Raises ``ValueError`` like ``seconds``."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("is not a size: it is less than 0")
        return value
    if isinstance(value, str):
        if match := _SIZE.fullmatch(value):
            return int(match[1]) * _BYTES[match[2] or "B"]
        near = _NEAR_SIZE.fullmatch(value)
        if near and re.fullmatch(r"[kmg](i?b)?", near[2].lower()):
            raise ValueError(f"is not a size: write {near[1]}{_MEANT[near[2][0].lower()]}")
    raise ValueError("is not a size: write it like 512B, 64KiB, 10MiB or 1GiB")


def share(value: object) -> float:
    """``20%``, or 0.2, as 0.2. Raises ``ValueError`` like ``seconds``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value > 1:
            raise ValueError("is more than the whole" + (f": write {value:g}%" if value <= 100 else ""))
        return float(value)
    if isinstance(value, str):
        if match := _SHARE.fullmatch(value):
            return round(float(match[1]) / 100, 6)
        if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", value):
            return share(float(value))
    raise ValueError("is not a share: write it like 20% or 0.2")


def duration_text(value: float) -> str:
    """Seconds in the largest unit that gives a whole number."""
    milliseconds = round(value * 1000)
    for unit, factor in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds >= factor and milliseconds % factor == 0:
            return f"{milliseconds // factor}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def size_text(value: int) -> str:
    """Bytes in the largest unit that gives a whole number."""
    for unit in ("GiB", "MiB", "KiB"):
        if value and value % _BYTES[unit] == 0:
            return f"{value // _BYTES[unit]}{unit}"
    return str(value)


def counted(number: int, noun: str) -> str:
    """``1 route``, ``2 routes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
