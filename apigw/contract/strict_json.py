"""JSON that every parser reads alike (RFC 8259, RFC 7493): what a policy finds in a body is what the service finds."""

from __future__ import annotations

import json
import re
from sys import float_info
from typing import Any

LARGEST = float_info.max

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]").search


class Malformed(Exception):
    """A sentence says what is not JSON, or not the same for all who read it."""


def strict_json(body: bytes, depth: int = 64, fractions: int = 1000) -> Any:
    """The value. Raises ``Malformed``, also for one in which more than ``depth`` arrays and objects are nested, or with
    more than so many ``fractions``: numbers that are no integers of 64 bits."""
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise Malformed(f"The body is nested more than {depth} deep.") from None
    except UnicodeDecodeError:
        raise Malformed("The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except ValueError:
        raise Malformed("The body has a number that is too long.") from None  # sys.set_int_max_str_digits
    level = [value]
    for _ in range(depth + 1):
        long = [each for each in level if isinstance(each, float) or (isinstance(each, int) and each.bit_length() > 64)]
        if any(not -LARGEST <= each <= LARGEST for each in long):
            # A service may read such a number as it is, and no maximum of the schema would have been compared with it;
            # or it reads infinity where the schema was compared with the number.
            raise Malformed("The body has a number that is too large.")
        fractions -= len(long)
        if fractions < 0:
            raise Malformed("The body has too many numbers that are no integers of 64 bits.")
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            if _SURROGATE(body):
                _refuse_half_characters(value)
            return value
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    raise Malformed(f"The body is nested more than {depth} deep.")


def _refuse_half_characters(value: Any) -> None:
    """RFC 7493 §2.1: half of a pair is read as it is, or as U+FFFD, or not at all."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Malformed("The body has half of a surrogate pair.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Some take the first, some the last: a service could find what nobody has checked.
        raise Malformed("The body has an object with the same name twice.")
    return found


def _no_constant(name: str) -> None:
    raise Malformed(f"The body is not JSON: {name} is no number.")
