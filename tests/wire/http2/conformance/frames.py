"""Raw frames, and a line that says what some bytes of frames are. Shares no code with the program."""

from __future__ import annotations

from collections.abc import Iterator

ES, EH, PADDED, PRIORITISED, ACK = 0x01, 0x04, 0x08, 0x20, 0x01
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CODES = (
    "NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR",
    "REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM INADEQUATE_SECURITY HTTP_1_1_REQUIRED",
)
NAMES = " ".join(CODES).split()
AUTHORITY = b"\x41\x01a"
WAIT = b"\x04\x02/w"
"""A path for which the application only begins an answer, and reads nothing."""
GET = b"\x82\x86\x84" + AUTHORITY
POST = b"\x83\x86\x84" + AUTHORITY


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


def data(number: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return frame(0, flags, number, payload)


def headers(number: int, block: bytes = GET, flags: int = ES | EH) -> bytes:
    return frame(1, flags, number, block)


def post(number: int, *fields: bytes) -> bytes:
    """A request whose body follows."""
    return headers(number, POST + b"".join(fields), EH)


def get(number: int, *fields: bytes) -> bytes:
    return headers(number, GET + b"".join(fields))


def priority(number: int, payload: bytes = b"\0\0\0\0\x10") -> bytes:
    return frame(2, 0, number, payload)


def reset(number: int, payload: bytes = b"\0\0\0\x08") -> bytes:
    return frame(3, 0, number, payload)


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(4, 0, 0, b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs))


def ping(payload: bytes = b"12345678", flags: int = 0, number: int = 0) -> bytes:
    return frame(6, flags, number, payload)


def goaway(last: int = 0, code: int = 0, number: int = 0) -> bytes:
    return frame(7, 0, number, last.to_bytes(4, "big") + code.to_bytes(4, "big"))


def window(number: int, increment: int) -> bytes:
    return frame(8, 0, number, increment.to_bytes(4, "big"))


def continuation(number: int, block: bytes = b"", flags: int = EH) -> bytes:
    return frame(9, flags, number, block)


def field(name: bytes, value: bytes) -> bytes:
    """A literal that is not indexed."""
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


def said(sent: bytes) -> Iterator[str]:
    """Each frame in short: ``1:200.`` is a head with END_STREAM, ``1:5`` five bytes of DATA, ``1:CANCEL`` a reset."""
    while sent:
        length, kind, flags, number = (
            int.from_bytes(sent[:3], "big"),
            sent[3],
            sent[4],
            int.from_bytes(sent[5:9], "big"),
        )
        payload, sent = sent[9 : 9 + length], sent[9 + length :]
        assert len(payload) == length
        end = "." if kind in (0, 1) and flags & ES else ""
        match kind:
            case 0:
                yield f"{number}:{length}{end}"
            case 1:
                yield f"{number}:{status(payload)}{end}"
            case 3:
                yield f"{number}:{NAMES[int.from_bytes(payload, 'big')]}"
            case 4:
                yield "ACK" if flags & ACK else "SETTINGS"
            case 6:
                yield "PONG" if flags & ACK else "PING"
            case 7:
                yield f"GOAWAY({int.from_bytes(payload[:4], 'big')}):{NAMES[int.from_bytes(payload[4:8], 'big')]}"
            case 8:
                yield f"{number}+{int.from_bytes(payload, 'big')}"
            case _:
                raise AssertionError(kind)


def status(block: bytes) -> str:
    """Of an answer, or the word ``head`` for a request. A size update may be in front."""
    block = block.removeprefix(b"\x20")
    indexed = {0x88: "200", 0x89: "204", 0x8C: "400"}
    if block[0] in indexed:
        return indexed[block[0]]
    return block[2:5].decode() if block.startswith(b"\x08\x03") else "head"
