# Compiled: see docs/decisions/compiled.md
"""The states of an HTTP/1.1 connection to a client, and their transitions: one state for each direction.

They are plain numbers for speed, as each request goes through four of them. The gateway itself does not use the tables
of transitions; the tests check every change of state against them.
"""

from __future__ import annotations

from typing import Final

# States of reading. From TUNNEL on, no more requests are read.

IDLE: Final = 0
"""Between two requests. Nothing of the next has arrived, or the client must first read its answers."""
HEAD: Final = 1
"""A part of a head has arrived."""
EXPECT: Final = 2
"""The client waits for ``100 Continue``, which is sent when the body is needed (RFC 9110 §10.1.1)."""
BODY: Final = 3
PAUSED: Final = 4
"""Within a body. Reading is paused until there is room for more."""
DONE: Final = 5
"""The request is complete, its answer is not."""
ENDED: Final = 6
"""The same, and the client has closed its side of the connection: it may wait for the answer, or be gone."""
REST: Final = 7
"""The answer is complete before the request: the rest of the request is read and dropped."""
TURN: Final = 8
"""More requests have arrived than may begin in one turn of the reactor. The next begins in a later turn."""
TUNNEL: Final = 9
"""The connection belongs to a WebSocket."""
LINGER: Final = 10
"""Lingering close: after the last answer, input is dropped, so that a reset does not destroy the answer (RFC 9112
§9.6)."""
CLOSING: Final = 11
"""The connection is closed when the client has read what was written to it."""
OVER: Final = 12
"""The connection is aborted or lost."""

READING: Final[dict[int, set[int]]] = {
    IDLE: {HEAD, EXPECT, BODY, DONE, TURN, LINGER, CLOSING, OVER},
    HEAD: {EXPECT, BODY, DONE, LINGER, CLOSING, OVER},
    EXPECT: {BODY, PAUSED, DONE, LINGER, OVER},
    BODY: {PAUSED, DONE, REST, LINGER, OVER},
    PAUSED: {BODY, DONE, REST, LINGER, OVER},
    DONE: {ENDED, IDLE, TUNNEL, LINGER, CLOSING, OVER},
    ENDED: {CLOSING, OVER},
    REST: {IDLE, CLOSING, OVER},
    TURN: {IDLE, OVER},
    TUNNEL: {CLOSING, OVER},
    LINGER: {CLOSING, OVER},
    CLOSING: {OVER},
    OVER: set(),
}
"""The transitions. Any state may also be entered again, which moves its deadline."""

# States of writing.

SILENT: Final = 0
"""Between two answers."""
PLAIN: Final = 1
"""An answer whose body is written unchanged: framed by its length, or by the close of the connection."""
CHUNKED: Final = 2
BODILESS: Final = 3
"""An answer without a body, whatever its Content-Length says (RFC 9112 §6.3)."""
SHUT: Final = 4
"""Nothing more is written: the connection is a tunnel, is being closed, or is lost."""

WRITING: Final[dict[int, set[int]]] = {
    SILENT: {PLAIN, CHUNKED, BODILESS, SHUT},
    PLAIN: {SILENT, SHUT},
    CHUNKED: {SILENT, SHUT},
    BODILESS: {SILENT, SHUT},
    SHUT: set(),
}
