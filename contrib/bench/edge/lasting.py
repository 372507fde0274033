"""A stream both ways whose two ends read slower than the other writes: the gateway must keep nothing of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from attrs import define, field

from bench.edge.calls import STREAM, service
from bench.edge.programs import with_grpc
from bench.figures import Verdict
from bench.ground import Ground
from bench.machine import MIB, memory
from bench.programs import HOST, Running

MESSAGE = 16 * 1024
RATE = 20.0
"""Messages a second that each end reads. It sends as many as are taken, so both directions are always full."""
WARM = 10.0
"""Seconds until memory is first looked at: buffers and windows have their size by then. At most a third of all."""
MOST_GROWTH = 4 * MIB


@define
class Reading:
    """Messages that were read, ``RATE`` a second."""

    count: int = 0
    next_at: float = field(factory=time.monotonic)

    def one(self) -> None:
        self.count += 1
        self.next_at += 1 / RATE
        time.sleep(max(0.0, self.next_at - time.monotonic()))


def check(ground: Ground, seconds: float) -> list[Verdict]:
    """``seconds`` of one stream, in which the gateway's memory is looked at each second."""
    over = threading.Event()
    theirs, ours = Reading(), Reading()

    def until(ended: Callable[[], bool]) -> Iterator[bytes]:
        while not ended():
            yield b"m" * MESSAGE

    def handle(messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        def read() -> None:
            for _ in messages:
                theirs.one()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        yield from until(lambda: over.is_set() or not context.is_active())

    failed: list[str] = []

    def converse(port: int) -> None:
        channel: Any
        with grpc.insecure_channel(f"{HOST}:{port}") as channel:
            try:
                for _ in channel.stream_stream(STREAM)(until(over.is_set), timeout=seconds + 60):
                    ours.one()
                    if over.is_set():
                        return
            except grpc.RpcError as error:
                failed.append(" ".join(str(error).split()))

    with service(handle) as port:
        gateway = ground.gateway(with_grpc, (port,))
        client = threading.Thread(target=converse, args=(gateway.port,), daemon=True)
        client.start()
        sizes = _watch(ground, gateway, seconds, client)
        over.set()
        client.join(30)
    return verdicts(sizes, seconds, min(theirs.count, ours.count), failed)


def _watch(ground: Ground, gateway: Running, seconds: float, client: threading.Thread) -> list[int]:
    began, sizes = time.monotonic(), list[int]()
    warm = min(WARM, seconds / 3)
    while (passed := time.monotonic() - began) < seconds and client.is_alive():
        time.sleep(1.0)
        if passed >= warm:
            sizes.append(memory(gateway.session).rss)
        if int(passed) % 60 == 59:
            ground.say(f"{passed:.0f} s, {memory(gateway.session).rss / MIB:.1f} MiB")
    return sizes


def verdicts(sizes: list[int], seconds: float, messages: int, failed: list[str]) -> list[Verdict]:
    """``sizes`` are resident bytes, one a second; ``messages`` came in the direction that had fewer."""
    grown = max(sizes) - sizes[0] if sizes else 0
    most = messages / seconds
    return [
        Verdict(
            f"a stream both ways for {seconds:g} s, with back-pressure",
            not failed and most > RATE / 2,
            failed[0] if failed else f"{most:.0f} messages of {MESSAGE // 1024} KiB a second each way",
            f"whole, at more than {RATE / 2:.0f}/s",
        ),
        Verdict(
            "its memory",
            bool(sizes) and grown <= MOST_GROWTH,
            f"grew by {grown / MIB:.2f} MiB from {sizes[0] / MIB:.1f}" if sizes else "not seen",
            f"at most {MOST_GROWTH // MIB} MiB",
        ),
    ]
