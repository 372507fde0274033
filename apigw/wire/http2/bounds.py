"""Every bound on what one HTTP/2 client may ask for, and the attack that each stands against.

Honest clients stay far below them. Go's net/http sends up to 8 WINDOW_UPDATE frames for a DATA frame, httpx one for
each request, and a proxy in front that puts many users on one connection sends the cancels of all of them there.
"""

from __future__ import annotations

from collections import deque

from apigw.wire.http2.frames import Code, ConnectionFault

MOST_STREAMS = 100
"""Open at a time: RFC 9113 §6.5.2 recommends no fewer, and browsers use as many."""
STREAM_WINDOW = 128 * 1024
"""Enough for 1.6 MB/s at a round trip of 80 ms; little enough that a hundred paused streams hold 12.5 MiB at worst."""
CONNECTION_WINDOW = 1024 * 1024
"""Given back as data arrives, whether or not anybody takes it: what a stream may hold is bounded by its own window, so
one whose listener has paused cannot keep the others waiting."""
MOST_CONTINUATIONS = 8
"""CONTINUATION frames of one field block (CVE-2024-27983 and its kin). nghttp2 has the same bound."""
MOST_CLOSED = 1000
"""Streams that we have closed and the client may not know of yet, of which late frames are forgiven."""

MOST_RESETS, RESETS_A_SECOND = 1000, 33
"""Streams that end before their answer begins, by the client's reset (rapid reset, CVE-2023-44487) or by a fault that
it provokes (CVE-2025-8671): nghttp2's token bucket. As in Envoy, they count only for a client that has so ended more
than half of its streams."""
MOST_WINDOW_UPDATES, UPDATES_A_DATA_FRAME = 5, 10
"""Envoy's formula: 5 + 2 × (streams + 10 × DATA frames sent) (CVE-2019-9511, data dribble)."""
WORTHWHILE = 1024
"""A DATA frame of so many bytes was worth sending, however small the client keeps its windows."""
MOST_QUESTIONS = 100
"""PING and SETTINGS frames in ``PERIOD``, each of which must be answered (CVE-2019-9512, CVE-2019-9515)."""
MOST_TRIFLES = 1000
"""Frames in ``PERIOD`` that change nothing: empty DATA (CVE-2019-9518), PRIORITY (CVE-2019-9513), late resets, unknown
ones. Each stream opened meanwhile earns one more, for its late reset."""
PERIOD = 10.0
"""Seconds."""


class TooMuch(ConnectionFault):
    """A bound is passed. What was accepted is still answered."""

    def __init__(self, reason: str) -> None:
        super().__init__(Code.ENHANCE_YOUR_CALM, reason)


class Bounds:
    """What one connection has done so far. Every method that counts raises ``TooMuch`` once there is too much of it."""

    def __init__(self) -> None:
        self.streams = 0
        """Opened so far."""
        self.data_frames = 0
        """Sent, and worth it."""
        self._resets = 0
        self._tokens = float(MOST_RESETS)
        self._tokens_at = 0.0
        self._updates = 0
        self._trifles = 0
        self._trifles_since = 0.0
        self._streams_then = 0
        self._questions: deque[float] = deque(maxlen=MOST_QUESTIONS + 1)

    def anew(self) -> Bounds:
        """The same bounds once more, for a client that has been warned. What it has earned stays."""
        bounds = Bounds()
        bounds.streams, bounds.data_frames = self.streams, self.data_frames
        return bounds

    def reset(self, now: float) -> None:
        """A stream ended before its answer began, and the client is the reason."""
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
        times = self._questions
        times.append(now)
        if len(times) > MOST_QUESTIONS and times[0] > now - PERIOD:
            raise TooMuch("Too many PING and SETTINGS frames.")

    def trifle(self, now: float) -> None:
        """A frame that changes nothing."""
        self._trifles += 1
        if self._trifles > MOST_TRIFLES + self.streams - self._streams_then:
            if now - self._trifles_since < PERIOD:
                raise TooMuch("Too many frames that change nothing.")
            self._trifles = 0
            self._trifles_since = now
            self._streams_then = self.streams
