"""What a plugin's class must be like: its attributes, its methods, and which of them may wait."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import (
    getattr_static,
    isasyncgenfunction,
    iscoroutinefunction,
    isfunction,
    isgeneratorfunction,
    signature,
)
from typing import Any

from apigw.config.nearest import hint
from apigw.contract.fields import Names
from apigw.contract.policy import POSITIONS
from apigw.policy.plugins.plugin_schema import problem_of
from apigw.wire.headers import TOKEN

METHODS = (
    "prepare",
    "start",
    "on_request",
    "choose_service",
    "on_forward",
    "choose_target",
    "on_request_body",
    "on_answer",
    "on_answer_body",
    "on_end",
    "stop",
)
"""In the order in which they are called."""
AT_ONCE = frozenset(("prepare", "choose_service", "choose_target", "on_answer", "on_end"))
"""Those that may not wait."""
OF_PIECES = frozenset(("on_request_body", "on_answer_body"))
"""Called again and again for one exchange; each of the others once."""
ARGUMENTS = {
    **dict.fromkeys(("start", "stop"), ""),
    "prepare": ", config, context",
    "choose_service": ", view, services",
    "choose_target": ", view, targets",
    **dict.fromkeys(("on_request_body", "on_answer_body"), ", view, data, last"),
}
"""What methods are called with, besides ``self``; the others with ``view``."""
NOT_OF_EXCHANGES = frozenset(("prepare", "start", "stop"))
POSITION = "after_limit"
"""That of ``on_request``, unless the class says another."""

_NOBODYS = Names(frozenset(), frozenset())

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch


def problems_of(plugin: Any) -> Iterator[str]:
    """What is wrong with a class, as fragments that follow its name."""
    name = getattr(plugin, "name", None)
    if not isinstance(name, str) or not _NAME(name):
        yield "has no attribute name, of letters, digits, _ and -"
    if not hasattr(plugin, "schema"):
        yield "has no attribute schema: a dict, {} if it takes no settings"
    else:
        problem = problem_of(plugin.schema)
        if problem is not None:
            yield f"has a schema that {problem}"
    position = getattr(plugin, "position", POSITION)
    if position not in POSITIONS:
        yield f"has the position {position!r}, which is not one of {', '.join(POSITIONS)}"
    if not isinstance(getattr(plugin, "changes_body", True), bool):
        yield "has an attribute changes_body that is neither True nor False"
    for method in METHODS:
        found = getattr(plugin, method, None)
        if found is None:
            continue
        if not callable(found):
            yield f"has an attribute {method} that is no method"
        elif method in AT_ONCE and iscoroutinefunction(found):
            yield f"has an async {method}, which cannot wait"
        elif not _takes(plugin, method):
            wanted = f"def {method}(self{ARGUMENTS.get(method, ', view')})"
            yield f"has {method}, which cannot be called with what it gets: write {wanted}"
        elif isgeneratorfunction(found) or isasyncgenfunction(found):
            yield f"has a {method} that is a generator"
    for attribute in dir(plugin):
        if attribute.startswith("on_") and attribute not in METHODS:
            yield f"has {attribute}, which the gateway never calls{hint(attribute, METHODS)}"
    if not any(hasattr(plugin, method) for method in METHODS if method.startswith(("on_", "choose_"))):
        yield "has no method that the gateway would call for a request: on_request or another"


def _takes(plugin: Any, method: str) -> bool:
    """Whether a method can be called as the gateway does; true where Python cannot tell."""
    found = getattr_static(plugin, method)
    if not isfunction(found):
        return True
    try:
        # Not of what a decorator has wrapped, which may add arguments to those that it gets.
        signature(found, follow_wrapped=False).bind(None, *ARGUMENTS.get(method, ", view").split(", ")[1:])
    except TypeError:
        return False
    except ValueError:  # nothing is known of its arguments
        return True
    return True


def owned_by(made: Any) -> frozenset[bytes]:
    """The names of ``own_headers``, in lower case. Raises ``ValueError`` for what is none."""
    names = getattr(made, "own_headers", ())
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError("own_headers is not a sequence of names")
    keys = frozenset(name.lower().encode("utf-8", "surrogateescape") for name in names)
    for key in keys:
        if TOKEN(key) is None:
            raise ValueError(f"own_headers has {key.decode('utf-8', 'replace')!r}, which is not the name of a header")
        refused = _NOBODYS.of(key.decode()).refused
        if refused:  # it would be taken from requests, and nobody could set it
            raise ValueError(f"own_headers has {key.decode()}: {refused}")
    return keys
