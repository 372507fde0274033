"""A configuration on its way from the process that has read it to those that use it (docs/decisions/reload.md).

It is pickled in pieces, none of which takes a millisecond to load: a tuple of more than ``PIECE`` entries, such as that
of the routes, is cut into several.
"""

from __future__ import annotations

import pickle
from collections.abc import Generator
from hashlib import blake2b
from io import BytesIO
from itertools import chain
from pathlib import Path
from struct import Struct
from typing import Any

from attrs import evolve, frozen

import apigw
from apigw.config.model import Config
from apigw.config.problem import Origin
from apigw.config.problem import Path as ConfigPath
from apigw.process.outline import Outline, outline_of

PIECE = 100
"""Entries of a tuple that are loaded at once; a hundred routes take some 0.3 ms."""

_LENGTH = Struct("=I")


@frozen
class Handover:
    """``data`` is a whole configuration, for ``unpack``; ``routes`` is how many it has. ``outline``: what it has."""

    data: bytes
    routes: int
    outline: Outline | None = None


def pack(config: Config) -> Handover:
    """For ``unpack``, ``without_details``."""
    lean = without_details(config)
    frames: list[bytes] = []
    frames.append(_pickled((evolve(lean, origins={}), tuple(lean.origins.items())), frames))
    return Handover(
        b"".join(chain.from_iterable((_LENGTH.pack(len(each)), each) for each in frames)),
        len(config.routes),
        outline_of(config),
    )


def without_details(config: Config) -> Config:
    """Without the places of all single values of routes and services, of which a gateway that runs reports no problem.

    Of 10,000 routes, these are 70,000 objects.
    """
    places = {path: origin for path, origin in config.origins.items() if not _is_detail(path)}
    return evolve(config, origins=places)


def unpack(data: bytes) -> Generator[None, None, Config]:
    """Load what ``pack`` has made, a piece after each yield."""
    loaded: list[Any] = []
    at = 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size + length
        loaded.append(_Unpickler(data[at - length : at], loaded).load())
        yield
    config, items = loaded.pop()
    origins: dict[ConfigPath, Origin] = {}
    for start in range(0, len(items), PIECE):
        origins.update(items[start : start + PIECE])
        yield
    return evolve(config, origins=origins)


def code() -> str:
    """A digest of the program's files, by which two processes know that they run the same."""
    digest = blake2b(digest_size=16)
    root = Path(apigw.__file__).parent
    for file in sorted(root.rglob("*.py")):
        digest.update(blake2b(file.relative_to(root).as_posix().encode()).digest())
        digest.update(blake2b(file.read_bytes()).digest())
    return digest.hexdigest()


def _is_detail(path: ConfigPath) -> bool:
    return path[:1] == ("routes",) or (path[:1] == ("services",) and len(path) > 2)


class _Pickler(pickle.Pickler):
    """Writes each piece of a long tuple to a frame of its own, and in its place which frames these are."""

    def __init__(self, file: BytesIO, frames: list[bytes]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._frames = frames

    def persistent_id(self, value: Any) -> tuple[int, ...] | None:
        if type(value) is not tuple or len(value) <= PIECE:
            return None
        numbers = []
        for start in range(0, len(value), PIECE):
            self._frames.append(_pickled(value[start : start + PIECE], self._frames))
            numbers.append(len(self._frames) - 1)
        return tuple(numbers)


class _Unpickler(pickle.Unpickler):
    def __init__(self, frame: bytes, loaded: list[Any]) -> None:
        super().__init__(BytesIO(frame))
        self._loaded = loaded

    def persistent_load(self, numbers: tuple[int, ...]) -> tuple[Any, ...]:
        return tuple(chain.from_iterable(self._loaded[number] for number in numbers))


def _pickled(value: object, frames: list[bytes]) -> bytes:
    file = BytesIO()
    _Pickler(file, frames).dump(value)
    return file.getvalue()
