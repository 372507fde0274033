# Compiled: see docs/decisions/compiled.md
"""The states of an HTTP/1.1 connection to a client, and which may follow which: one for each direction.

They are plain numbers, because each request goes through four of them. Nothing looks at the tables while the gateway
runs; the tests hold every change of state against them.
"""

from __future__ import annotations

from typing import Final

# What is read from the client. Those from TUNNEL on read no more requests.

IDLE: Final = 0
"""Between two requests: nothing of the next has come, or it may not begin before the client reads its answers."""
HEAD: Final = 1
"""A head has begun and not ended."""
EXPECT: Final = 2
"""The client keeps the body back until it gets ``100 Continue``, for which it is not time yet (RFC 9110 §10.1.1)."""
BODY: Final = 3
PAUSED: Final = 4
"""Within a body: the client is made to wait until there is room for more."""
DONE: Final = 5
"""Nothing more is read of this request, whose answer is not complete."""
ENDED: Final = 6
"""The same, and the client has ended its side of the connection: it may wait for the answer, or be gone."""
REST: Final = 7
"""The answer is complete before the request is, the rest of which is dropped."""
TURN: Final = 8
"""More requests have come than are answered in one turn of the reactor. The next begins in a later turn."""
TUNNEL: Final = 9
"""The connection belongs to a WebSocket."""
LINGER: Final = 10
"""Behind the last answer. What still comes is dropped, so that no reset destroys the answer (RFC 9112 §9.6)."""
CLOSING: Final = 11
"""The connection is closed when the client has taken what was written to it."""
OVER: Final = 12
"""The connection is cut, or lost."""

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
"""What may follow on what. Any state may be entered anew, which moves its deadline."""

# What is written to the client.

SILENT: Final = 0
"""No answer has begun, or the last one is complete."""
PLAIN: Final = 1
"""An answer whose body goes out as it is: its length is known, or it ends with the connection."""
CHUNKED: Final = 2
BODILESS: Final = 3
"""An answer without a body, whatever its Content-Length says (RFC 9112 §6.3)."""
SHUT: Final = 4
"""Nothing more is written: a tunnel has the connection, or it is being closed, or cut."""

WRITING: Final[dict[int, set[int]]] = {
    SILENT: {PLAIN, CHUNKED, BODILESS, SHUT},
    PLAIN: {SILENT, SHUT},
    CHUNKED: {SILENT, SHUT},
    BODILESS: {SILENT, SHUT},
    SHUT: set(),
}
