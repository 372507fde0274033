"""The messages of gRPC's health checking protocol (grpc.health.v1), which are short enough to be written by hand."""

from __future__ import annotations

PATH = "/grpc.health.v1.Health/Check"
SERVING = 1
_PREFIX = 5
"""Bytes in front of each message: a flag for compression, and the length."""
_FIXED = {1: 8, 5: 4}
"""Bytes of a protobuf field with a fixed length, by its wire type."""


def question(service: str) -> bytes:
    """HealthCheckRequest: the name of the service, its field 1; empty for the server as a whole."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def status_in(body: bytes) -> int:
    """The ServingStatus, field 1 of HealthCheckResponse: 0 UNKNOWN, 1 SERVING, 2 NOT_SERVING, 3 SERVICE_UNKNOWN.

    Raises ``ValueError`` if ``body`` is not exactly one uncompressed message.
    """
    message = body[_PREFIX:]
    if len(body) < _PREFIX or body[0] or int.from_bytes(body[1:_PREFIX], "big") != len(message):
        raise ValueError("not one message")
    status = at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _read_varint(message, at)
            if tag >> 3 == 1:
                status = value
        elif kind == 2:
            length, at = _read_varint(message, at)
            at += length
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise ValueError("an unknown wire type")
    if at > len(message):
        raise ValueError("a field is cut short")
    return status


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift, byte in zip(range(0, 70, 7), message[at : at + 10], strict=False):
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
    raise ValueError("a number is cut short, or too long")
