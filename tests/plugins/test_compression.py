"""Which coding an answer has, and how its pieces are encoded."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import brotli
import pytest
import zstandard
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from apigw.plugin import MediaType
from apigw.plugins.compression.accept import chosen
from apigw.plugins.compression.encoders import CODINGS, MISSING, Encoder
from apigw.plugins.compression.plugin import AT_A_TIME, Compression, Stream

DECODERS: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
    "gzip": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS).decompress,
    "br": lambda: brotli.Decompressor().process,
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
}


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ([], None),
        ([""], None),
        (["gzip"], "gzip"),
        (["GZIP"], "gzip"),
        (["x-gzip"], "gzip"),
        (["gzip, deflate, br, zstd"], "zstd"),
        (["gzip, br"], "br"),
        (["gzip", "br"], "br"),
        (["gzip;q=1.0, br;q=0.5"], "gzip"),
        (["gzip ; Q=0.5,br ;q=0.501"], "br"),
        (["gzip;q=0"], None),
        (["br;q=0, *"], "zstd"),
        (["*"], "zstd"),
        (["*;q=0"], None),
        (["*;q=0, gzip"], "gzip"),
        (["identity"], None),
        (["identity, gzip;q=0.5"], None),
        (["identity;q=0.5, gzip"], "gzip"),
        (["gzip;q=2"], None),
        (["gzip;q=-1"], None),
        (["gzip;q=nan"], None),
        (["gzip;level=9"], None),
        (["deflate, compress"], None),
        ([",,gzip,,"], "gzip"),
        (["gzip\udcff"], None),
        ([", " * 10_000 + "gzip"], None),
    ],
)
def test_what_the_client_wants(accept: list[str], coding: str | None) -> None:
    """The coding with the highest weight, and none that the client did not name."""
    assert chosen(accept, ["zstd", "br", "gzip"]) == coding


@pytest.mark.parametrize("name", CODINGS)
def test_streams(name: str) -> None:
    """What came so far can be decoded after each flush, and in the end all of it."""
    assert name not in MISSING
    chance = random.Random(1)
    encoder, decode = CODINGS[name](), DECODERS[name]()
    whole, decoded, sent = b"", b"", 0
    for size in (1, 100, 16_384, 40_000, 65_536):
        data = bytes(chance.choices(b"abcdefgh", k=size))
        whole += data
        for at in range(0, size, 16_384):
            piece = encoder.encode(data[at : at + 16_384])
            decoded += decode(piece)
            sent += len(piece)
        decoded += decode(encoder.flush())
        assert decoded == whole
    decoded += decode(encoder.finish())
    assert decoded == whole
    assert sent < len(whole) / 2


@pytest.mark.parametrize("name", CODINGS)
def test_nothing_to_encode(name: str) -> None:
    """An empty body is valid, too."""
    assert DECODERS[name]()(CODINGS[name]().finish()) == b""


@pytest.mark.parametrize("milliseconds", [0.0, 0.4, 5.0])
def test_the_reactor_has_its_turns(milliseconds: float) -> None:
    """Whatever a slice takes: after a millisecond the rest waits for the next turn."""
    clock: Any = Clock()
    slices: list[int] = []

    def encode(data: bytes) -> bytes:
        clock.rightNow += milliseconds / 1000
        slices.append(len(data))
        return data

    plugin = Compression()
    turns: list[Callable[[], object]] = []

    def later(seconds: float, run: Callable[..., object], *arguments: object) -> None:
        turns.append(partial(run, *arguments))

    context: Any = SimpleNamespace(seconds=clock.seconds, later=later)
    plugin.context = context
    view: Any = SimpleNamespace(state={"stream": Stream(Encoder(encode, lambda: b"<", lambda: b">"))})
    data = bytes(range(256)) * 256
    result: Any = plugin.on_answer_body(view, data, True)
    if not milliseconds:
        assert result == data + b">"
        return
    made: Deferred[bytes] = ensureDeferred(result)
    most = 1 if milliseconds > 1 else 3
    assert len(slices) == most
    while turns:
        before = len(slices)
        turns.pop()()
        assert 0 < len(slices) - before <= most
    assert made.result == data + b">"
    assert sum(slices) == len(data)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [({"types": ["text/event-stream"]}, "never compressed"), ({"codings": ["br"]}, "needs brotli")],
)
def test_bad_configurations(config: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Types that must not wait, and codings that nothing here knows."""
    monkeypatch.setitem(MISSING, "br", "brotli")
    context: Any = None
    with pytest.raises(ValueError, match=sentence):
        Compression().prepare({"types": [], "least": 1, **config}, context)
    without = Compression()
    without.prepare({"types": [], "least": 1}, context)
    assert without.codings == ["zstd", "gzip"]


class Head(dict[str, str]):
    """The head of an answer."""

    status = 200
    own = False
    set = dict.__setitem__

    def all(self, name: str) -> list[str]:
        return [self[name]] if name in self else []

    @property
    def media_type(self) -> MediaType:
        return MediaType(self.all("Content-Type"))

    def add(self, name: str, value: str) -> None:
        self[name] = value

    def remove(self, name: str) -> None:
        self.pop(name, None)


def test_memory_is_bounded() -> None:
    """So many answers are compressed at a time; the next is as it is, until one of them has ended, or is gone."""
    plugin = Compression()
    plugin.prepare({"types": ["text/plain"], "least": 1, "codings": ["gzip"]}, SimpleNamespace(seconds=Clock().seconds))  # type: ignore[arg-type]

    def begun() -> Any:
        request, answer = SimpleNamespace(all=lambda name: ["gzip"]), Head({"Content-Type": "text/plain"})
        view: Any = SimpleNamespace(request=request, answer=answer, method="GET", state={}, pass_body=lambda: None)
        plugin.on_answer(view)
        return view

    def coded(view: Any) -> bool:
        return "Content-Encoding" in view.answer

    views = [begun() for _ in range(AT_A_TIME)]
    assert all(map(coded, views)) and not coded(begun())
    assert zlib.decompress(plugin.on_answer_body(views[0], b"a", True), 31) == b"a"  # type: ignore[arg-type]
    views[0] = begun()
    assert coded(views[0]) and not coded(begun())
    views.pop()
    assert coded(begun())
