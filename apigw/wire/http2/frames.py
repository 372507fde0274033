# Compiled: see docs/decisions/compiled.md
"""HTTP/2 frames as bytes, and the two kinds of errors (RFC 9113 §4 to §7)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from mypy_extensions import i64

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

ACK: Final = 0x01
END_STREAM: Final = 0x01
END_HEADERS: Final = 0x04
PADDED: Final = 0x08
HAS_PRIORITY: Final = 0x20

ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_LENGTH: Final = 9
LARGEST_FRAME: Final = 16_384
"""Maximum bytes of a payload, for both sides: the default (RFC 9113 §6.5.2). Longer ones would delay other streams."""
LARGEST_WINDOW: Final = 2**31 - 1
LARGEST_STREAM: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535
_SETTING_LENGTH: Final = 6


class Code(IntEnum):
    """RFC 9113 §7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionFault(Exception):
    """A connection error (RFC 9113 §5.4.1): the connection ends with GOAWAY."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class StreamFault(Exception):
    """A stream error (RFC 9113 §5.4.2): the stream ends with RST_STREAM, and the others go on.

    ``status``: the status that answers a malformed request, if its answer has not begun (RFC 9113 §8.1.1). With 0, the
    stream is only reset.
    """

    def __init__(self, code: Code, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.status = status


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frame_head(len(payload), kind, flags, stream) + payload


def frame_head(length: i64, kind: i64, flags: i64, stream: i64) -> bytes:
    """The nine bytes before a payload (RFC 9113 §4.1)."""
    return int(length << 48 | kind << 40 | flags << 32 | stream).to_bytes(HEAD_LENGTH, "big")


def header_frames(stream: int, block: bytes, end: bool) -> bytes:
    """A field block as a HEADERS frame and the CONTINUATION frames that it needs. ``end``: with END_STREAM."""
    flags = END_STREAM if end else 0
    if len(block) <= LARGEST_FRAME:
        return frame(HEADERS, END_HEADERS | flags, stream, block)
    pieces = [block[at : at + LARGEST_FRAME] for at in range(0, len(block), LARGEST_FRAME)]
    frames = [frame(HEADERS, flags, stream, pieces[0])]
    frames += [frame(CONTINUATION, 0, stream, piece) for piece in pieces[1:-1]]
    frames.append(frame(CONTINUATION, END_HEADERS, stream, pieces[-1]))
    return b"".join(frames)


def reset_frame(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def window_frame(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def goaway_frame(last_stream: int, code: int) -> bytes:
    return frame(GOAWAY, 0, 0, (last_stream << 32 | code).to_bytes(8, "big"))


def settings_frame(settings: dict[int, int]) -> bytes:
    pairs = [(number << 32 | value).to_bytes(_SETTING_LENGTH, "big") for number, value in settings.items()]
    return frame(SETTINGS, 0, 0, b"".join(pairs))


def read_settings(payload: bytes) -> dict[int, int]:
    """The settings of a frame, each with its last value. Raises ``ConnectionFault`` (RFC 9113 §6.5.2)."""
    if len(payload) % _SETTING_LENGTH:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "SETTINGS of a wrong length.")
    settings: dict[int, int] = {}
    for at in range(0, len(payload), _SETTING_LENGTH):
        number = payload[at] << 8 | payload[at + 1]
        value = int(long_at(payload, at + 2))
        settings[number] = value
        if number == ENABLE_PUSH and value > 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1.")
        if number == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large.")
        if number == MAX_FRAME_SIZE and not LARGEST_FRAME <= value < 2**24:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range.")
    return settings


def long_at(data: bytes, at: i64) -> i64:
    """The four bytes at ``at`` as a number."""
    high: i64 = data[at]
    upper: i64 = data[at + 1]
    lower: i64 = data[at + 2]
    low: i64 = data[at + 3]
    return high << 24 | upper << 16 | lower << 8 | low


def read_long(payload: bytes) -> int:
    """The number in a RST_STREAM or WINDOW_UPDATE frame. Raises ``ConnectionFault``."""
    if len(payload) != 4:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A frame with a payload of four bytes has another length.")
    return int(long_at(payload, 0))


def unpad(payload: bytes) -> bytes:
    """The payload of a padded frame, without the padding. Raises ``ConnectionFault``."""
    if not payload:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A padded frame is empty.")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "The padding is longer than its frame.")
    return payload[1 : len(payload) - padding]
