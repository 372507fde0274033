# Compiled: see docs/decisions/compiled.md
"""The bounds on one HTTP/2 client, and the attack that each prevents.

Honest clients stay far below them. Go's net/http sends up to 8 WINDOW_UPDATE frames for a DATA frame, httpx one for
each request. A proxy in front that shares one connection among many users resets the streams of all of them on it.
"""

from __future__ import annotations

from collections import deque
from typing import Final, final

from apigw.wire.http2.frames import Code, ConnectionFault

MOST_STREAMS: Final = 100
"""Concurrent streams. RFC 9113 §6.5.2 recommends at least 100, and browsers use as many."""
MOST_OF_TURN: Final = 16
"""Requests that one connection may begin in a turn of the reactor, as over HTTP/1.1, so that others are served too."""
STREAM_WINDOW: Final = 128 * 1024
"""Bytes. It allows 1.6 MB/s at a round trip of 80 ms, and bounds a hundred paused streams to 12.5 MiB."""
CONNECTION_WINDOW: Final = 1024 * 1024
"""Bytes. Given back as data arrives, also when its stream is paused, so that a paused stream does not block the others.
What a stream holds is bounded by its own window."""
MOST_CONTINUATIONS: Final = 8
"""CONTINUATION frames of one field block (CVE-2024-27983, CVE-2024-27316). nghttp2 has the same bound."""
MOST_CLOSED: Final = 1000
"""Streams that we closed first and that are remembered. Late frames of these are ignored."""

MOST_RESETS: Final = 1000
RESETS_A_SECOND: Final = 33
"""nghttp2's token bucket for streams that end before their answer begins: by the client's reset (rapid reset,
CVE-2023-44487) or by an error that it provokes (MadeYouReset, CVE-2025-8671). As in Envoy, it applies only to a client
that has ended more than half of its streams in this way."""
MOST_WINDOW_UPDATES: Final = 5
UPDATES_A_DATA_FRAME: Final = 10
"""WINDOW_UPDATE frames by Envoy's formula: 5 + 2 × (streams + 10 × DATA frames sent) (data dribble, CVE-2019-9511)."""
WORTHWHILE: Final = 1024
"""Bytes. A DATA frame of at least this size counts as sent, however small the client's windows are."""
MOST_QUESTIONS: Final = 100
"""PING and SETTINGS frames in ``PERIOD``. Each must be answered (CVE-2019-9512, CVE-2019-9515). One for each DATA frame
that we have sent is free: gRPC, as grpc-go does by default, measures a connection's bandwidth by a PING behind DATA."""
MOST_TRIFLES: Final = 1000
"""Frames in ``PERIOD`` without effect: empty DATA (CVE-2019-9518), PRIORITY (CVE-2019-9513), late resets, frames of
unknown types. Each stream opened meanwhile allows one more, for its late reset."""
PERIOD: Final = 10.0
"""Seconds."""


class TooMuch(ConnectionFault):
    """A bound is exceeded. Requests that were accepted are still answered."""

    def __init__(self, reason: str) -> None:
        super().__init__(Code.ENHANCE_YOUR_CALM, reason)


@final
class Bounds:
    """The counts of one connection. Each method counts one event, and raises ``TooMuch`` beyond its bound."""

    def __init__(self) -> None:
        self.streams = 0
        """Streams opened so far."""
        self.data_frames = 0
        """DATA frames sent that count: see ``WORTHWHILE``."""
        self._resets = 0
        self._tokens = float(MOST_RESETS)
        self._tokens_at = 0.0
        self._updates = 0
        self._trifles = 0
        self._trifles_since = 0.0
        self._streams_then = 0
        self._questions: deque[float] = deque(maxlen=MOST_QUESTIONS + 1)
        self._data_frames_then = 0

    def anew(self) -> Bounds:
        """The same bounds once more, for a client that has been warned. What it has earned stays."""
        bounds = Bounds()
        bounds.streams, bounds.data_frames = self.streams, self.data_frames
        return bounds

    def reset(self, now: float) -> None:
        """A stream ended before its answer began, because of the client."""
        self._resets += 1
        tokens = self._tokens + (now - self._tokens_at) * RESETS_A_SECOND
        self._tokens = tokens = (tokens if tokens < MOST_RESETS else MOST_RESETS) - 1
        self._tokens_at = now
        if tokens < 0:
            self._tokens = 0.0
            if 2 * self._resets > self.streams:
                raise TooMuch("Too many streams are reset before their answer.")

    def window_update(self) -> None:
        self._updates += 1
        earned = self.streams + UPDATES_A_DATA_FRAME * self.data_frames
        if self._updates > MOST_WINDOW_UPDATES + 2 * earned:
            raise TooMuch("Too many WINDOW_UPDATE frames.")

    def question(self, now: float) -> None:
        """PING or SETTINGS."""
        if self._data_frames_then < self.data_frames:
            self._data_frames_then = self.data_frames
            return
        times = self._questions
        times.append(now)
        if len(times) > MOST_QUESTIONS and times[0] > now - PERIOD:
            raise TooMuch("Too many PING and SETTINGS frames.")

    def trifle(self, now: float) -> None:
        """A frame without effect."""
        self._trifles += 1
        if self._trifles > MOST_TRIFLES + self.streams - self._streams_then:
            if now - self._trifles_since < PERIOD:
                raise TooMuch("Too many frames that change nothing.")
            self._trifles = 0
            self._trifles_since = now
            self._streams_then = self.streams
