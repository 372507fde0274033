# Compiled: see docs/decisions/compiled.md
"""The states of a request's stream, and their transitions: one state for each direction (RFC 9113 §5.1).

They are plain numbers for speed. The gateway itself does not use the tables of transitions; the tests check every
change of state against them.
"""

from __future__ import annotations

from typing import Final

# States of reading: what the client sends. From HELD on, the client has ended it.

EXPECT: Final = 0
"""The client waits for ``100 Continue``, which is sent when the body is needed (RFC 9110 §10.1.1)."""
PAUSED: Final = 1
"""DATA is held until there is room for more, or, at first, until the body is wanted."""
BODY: Final = 2
"""DATA is passed on as it arrives."""
HELD: Final = 3
"""The request is complete. Some of it is still held."""
DONE: Final = 4
"""The request is complete, and passed on. If the listener pauses at the last piece, its end is held."""
SHUT: Final = 5
"""The stream is closed."""

READING: Final[dict[int, set[int]]] = {
    EXPECT: {PAUSED, HELD, SHUT},
    PAUSED: {EXPECT, BODY, HELD, SHUT},
    BODY: {PAUSED, HELD, SHUT},
    HELD: {DONE, SHUT},
    DONE: {HELD, SHUT},
    SHUT: set(),
}

# States of writing: the answer.

SILENT: Final = 0
"""Nothing, or only interim responses."""
OPEN: Final = 1
"""The answer has begun."""
ENDING: Final = 2
"""The answer is complete. Some of it waits for a window or the transport."""
ENDED: Final = 3
"""END_STREAM is sent."""
CLOSED: Final = 4
"""The stream is closed, by both ends or a reset."""

WRITING: Final[dict[int, set[int]]] = {
    SILENT: {OPEN, ENDING, CLOSED},
    OPEN: {ENDING, CLOSED},
    ENDING: {ENDED, CLOSED},
    ENDED: {CLOSED},
    CLOSED: set(),
}
