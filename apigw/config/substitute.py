"""``${VAR}`` in values, from the environment.

    ${VAR}              the variable; an error where it is not set
    ${VAR:-default}     the default where it is not set or empty
    ${VAR:?message}     an error that says the message where it is not set or empty
    $$                  a dollar sign

Any other ``$`` stands for itself, as in password hashes. The content of a variable is not searched for
further variables. It cannot add structure either, because this runs on scalars after the YAML is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_VARIABLE = re.compile(
    r"""\$(?: (?P<dollar>\$)
            | \{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?: :(?P<operator>[-?])(?P<word>[^}]*) )?\}
            | (?P<bad>\{) )""",
    re.VERBOSE,
)
_SYNTAX = "contains a ${ that is none of ${NAME}, ${NAME:-default}, ${NAME:?message} (write $${ for the two characters)"


def substitute(text: str, environ: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """``text`` with its variables replaced, and the names of those that were found in ``environ``.

    Raises ``ValueError`` with a sentence about the text. It does not quote the content of variables.
    """
    if "$" not in text:
        return text, ()
    names: list[str] = []

    def replacement(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        if match["bad"] or "${" in (match["word"] or ""):
            raise ValueError(_SYNTAX)
        name, operator, word = match["name"], match["operator"], (match["word"] or "").replace("$$", "$")
        value = environ.get(name)
        if value or (value is not None and operator is None):
            names.append(name)
            return _clean(name, value)
        if operator == "-":
            return word
        empty = "is empty" if value == "" else "is not set"
        raise ValueError(f"needs the environment variable {name}, which {empty}" + (f": {word}" if word else ""))

    return _VARIABLE.sub(replacement, text), tuple(names)


def _clean(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"needs the environment variable {name}, which is not UTF-8") from None
    if "\0" in value:
        raise ValueError(f"needs the environment variable {name}, which contains a NUL character")
    return value
