"""HTTP/2 frames as bytes, and the two kinds of errors (RFC 9113 §4 to §7)."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

ACK = END_STREAM = 0x01
END_HEADERS = 0x04
PADDED = 0x08
HAS_PRIORITY = 0x20

ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(2, 7)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_LENGTH = 9
LARGEST_FRAME = 16_384
"""Maximum bytes of a payload, for both sides: the default (RFC 9113 §6.5.2). Longer ones would delay other streams."""
LARGEST_WINDOW = LARGEST_STREAM = 2**31 - 1
DEFAULT_WINDOW = 65_535

_HEAD = Struct(">HBBBL")
_SETTING = Struct(">HL")
_LONG = Struct(">L")
_LONGS = Struct(">LL")

unpack_head = _HEAD.unpack_from
"""The upper 16 and the lower 8 bits of the length, the kind, the flags, and the stream with its reserved bit."""


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
    length = len(payload)
    return _HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def header_frames(stream: int, block: bytes, end: bool) -> bytes:
    """A field block as a HEADERS frame and the CONTINUATION frames that it needs. ``end``: with END_STREAM."""
    if len(block) <= LARGEST_FRAME:
        return frame(HEADERS, END_HEADERS | end, stream, block)
    pieces = [block[at : at + LARGEST_FRAME] for at in range(0, len(block), LARGEST_FRAME)]
    frames = [frame(HEADERS, int(end), stream, pieces[0])]
    frames += [frame(CONTINUATION, 0, stream, piece) for piece in pieces[1:-1]]
    return b"".join((*frames, frame(CONTINUATION, END_HEADERS, stream, pieces[-1])))


def reset_frame(stream: int, code: Code) -> bytes:
    return frame(RST_STREAM, 0, stream, _LONG.pack(code))


def window_frame(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _LONG.pack(increment))


def goaway_frame(last_stream: int, code: Code) -> bytes:
    return frame(GOAWAY, 0, 0, _LONGS.pack(last_stream, code))


def settings_frame(settings: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(number, value) for number, value in settings.items()))


def read_settings(payload: bytes) -> dict[int, int]:
    """The settings of a frame, each with its last value. Raises ``ConnectionFault`` (RFC 9113 §6.5.2)."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "SETTINGS of an odd length.")
    settings: dict[int, int] = {}
    for number, value in _SETTING.iter_unpack(payload):
        settings[number] = value
        if number == ENABLE_PUSH and value > 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1.")
        if number == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large.")
        if number == MAX_FRAME_SIZE and not LARGEST_FRAME <= value < 2**24:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range.")
    return settings


def read_long(payload: bytes) -> int:
    """The number in a RST_STREAM or WINDOW_UPDATE frame. Raises ``ConnectionFault``."""
    if len(payload) != _LONG.size:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A frame with a payload of four bytes has another length.")
    number: int = _LONG.unpack(payload)[0]
    return number


def unpad(payload: bytes) -> bytes:
    """The payload of a padded frame, without the padding. Raises ``ConnectionFault``."""
    if not payload:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A padded frame is empty.")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "The padding is longer than its frame.")
    return payload[1 : len(payload) - padding]
