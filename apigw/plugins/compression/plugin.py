"""Compresses answers for clients that take it (docs/reference/compression.md)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, ClassVar
from weakref import WeakSet

from twisted.internet.defer import Deferred

from apigw.plugin import AnswerHead, Context, View
from apigw.plugins.compression.accept import chosen
from apigw.plugins.compression.encoders import CODINGS, MISSING, Encoder

TYPES = (
    "application/javascript", "application/json", "application/ld+json", "application/manifest+json",
    "application/problem+json", "application/rss+xml", "application/vnd.api+json", "application/xml", "image/svg+xml",
    "text/css", "text/csv", "text/html", "text/javascript", "text/markdown", "text/plain", "text/xml",
)  # fmt: skip
"""Types of bodies that become smaller. Images, films, archives and fonts are compressed already."""

SLICE = 16 * 1024
"""Bytes that are encoded at a time: in half a millisecond, as measured."""
AT_ONCE = 0.001
"""Seconds after which the reactor has its turn, before the next slice."""

AT_A_TIME = 256
"""Answers that are compressed at a time, in one worker: 150 MiB of memory at most. Further ones stay as they are, so
that clients who read slowly cannot take more."""

UNCHANGED_ONLY = ("Accept-Ranges", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest")
"""Headers that are wrong for a body that is encoded."""


class Stream:
    """An answer that is being compressed."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder


class Compression:
    name: ClassVar = "compression"
    schema: ClassVar[dict[str, Any]] = {
        "codings": {
            "type": "list",
            "schema": {"type": "string", "allowed": list(CODINGS)},
            "minlength": 1,
            "meta": {"doc": "In the order in which they are preferred; all that are installed."},
        },
        "types": {
            "type": "list",
            "schema": {"type": "string", "regex": "[a-z]+/[a-z0-9.+*-]+"},
            "default": [*TYPES],
            "meta": {"doc": "The types that are compressed, without parameters."},
        },
        "least": {"size": ["1", "1MiB"], "default": 1024, "meta": {"doc": "Smaller bodies stay as they are."}},
    }

    def prepare(self, config: dict[str, Any], context: Context) -> None:
        self.context = context
        self.streams: WeakSet[Stream] = WeakSet()
        """Those that are under way: one is gone with its last piece, or with its exchange, however that ends."""
        self.least = config["least"]
        self.types = frozenset(config["types"])
        if "text/event-stream" in self.types:
            raise ValueError("types: text/event-stream is never compressed, its events must not wait")
        self.codings = config.get("codings") or [name for name in CODINGS if name not in MISSING]
        for name in self.codings:
            if name in MISSING:
                raise ValueError(f"codings: {name} needs {MISSING[name]}: pip install 'apigw[compression]'")

    def on_answer(self, view: View) -> None:
        answer = view.answer
        if answer.own or not self._suits(view, answer):
            view.pass_body()
            return
        if not {"*", "accept-encoding"} & {each.strip().lower() for each in ",".join(answer.all("Vary")).split(",")}:
            answer.add("Vary", "Accept-Encoding")
        coding = chosen(view.request.all("Accept-Encoding"), self.codings)
        if coding is None or view.method == "HEAD" or len(self.streams) >= AT_A_TIME:
            view.pass_body()
            return
        answer.set("Content-Encoding", coding)
        tag = answer.get("ETag")
        if tag is not None and not tag.startswith("W/"):
            answer.set("ETag", f"W/{tag}")  # the bytes are others now (RFC 9110 §8.8.1)
        for name in UNCHANGED_ONLY:
            answer.remove(name)
        view.state["stream"] = stream = Stream(CODINGS[coding]())
        self.streams.add(stream)

    def _suits(self, view: View, answer: AnswerHead) -> bool:
        """Whether an answer is compressed for those who take it."""
        length = answer.get("Content-Length")
        return (
            answer.status not in (204, 206, 304)
            and answer.media_type.name in self.types
            and "Content-Encoding" not in answer
            and "Content-Range" not in answer
            and "no-transform" not in ",".join(answer.all("Cache-Control")).lower()
            and (length is None or int(length) >= self.least)
        )

    def on_answer_body(self, view: View, data: bytes, last: bool) -> bytes | Awaitable[bytes]:
        stream: Stream = view.state.pop("stream") if last else view.state["stream"]
        encoder = stream.encoder
        out: list[bytes] = []
        done = self._encode(encoder, data, 0, out)
        return self._rest(encoder, data, done, last, out) if done < len(data) else _ended(encoder, last, out)

    async def _rest(self, encoder: Encoder, data: bytes, done: int, last: bool, out: list[bytes]) -> bytes:
        """What the reactor is not to wait for: a part after each of its turns."""
        while done < len(data):
            turn: Deferred[None] = Deferred()
            self.context.later(0, turn.callback, None)
            await turn
            done = self._encode(encoder, data, done, out)
        return _ended(encoder, last, out)

    def _encode(self, encoder: Encoder, data: bytes, at: int, out: list[bytes]) -> int:
        """Encode from ``at`` on, for as long as ``AT_ONCE``. Returns how far."""
        until = self.context.seconds() + AT_ONCE
        while at < len(data):
            out.append(encoder.encode(data[at : at + SLICE]))
            at += SLICE
            if self.context.seconds() >= until:
                break
        return at


def _ended(encoder: Encoder, last: bool, out: list[bytes]) -> bytes:
    out.append(encoder.finish() if last else encoder.flush())
    return b"".join(out)
