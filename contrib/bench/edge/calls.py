"""gRPC, beside Envoy and nginx's ``grpc_pass``: unary calls, and streams both ways."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from typing import Any

import grpc
from attrs import frozen

from bench.edge.programs import CALL, ENVOY_GRPC, MESSAGE, NGINX_GRPC, UNARY_ORIGIN, with_grpc
from bench.figures import Sample as Sample
from bench.figures import Verdict, as_json, cost_verdict, failures, ratio, report, summarize, table, times
from bench.ground import Ground
from bench.h2load import H2load
from bench.machine import cpu_seconds, memory
from bench.part import Part
from bench.programs import HOST, NotStarted, Program, Running, start
from bench.result import NoResult
from bench.rounds import Contestant, run_rounds
from bench.scenarios import Scenario

MOST = 1.3
"""Times what Envoy spends on a unary call."""
STREAM = "/bench.Echo/Stream"
STREAMS = 16
HEADERS = (("Content-Type", "application/grpc"), ("TE", "trailers"))
_UNARY = Scenario("grpc", with_grpc, CALL, HEADERS)


def started(ground: Ground, behind: int) -> list[tuple[str, Running]]:
    """Each proxy before the service at port ``behind``. What is not installed is named and left out."""
    programs: list[tuple[str, Program]] = [
        ("nginx", NGINX_GRPC),
        ("envoy", ENVOY_GRPC),
        (ground.variant.name, ground.variant.program(with_grpc)),
    ]
    runs: list[tuple[str, Running]] = []
    for name, program in programs:
        if lacks := program.lacks:
            ground.say(f"left out: {name} ({lacks})")
            continue
        try:
            running = start(program, ground.cores.proxy, ground.directory, ground.stack, (behind,))
        except NotStarted as error:
            ground.say(f"left out: {error}")
            continue
        runs.append((name, running))
    return runs


def unary(ground: Ground, rounds: int, seconds: int) -> Part:
    """64 calls at a time over 16 connections, each with a message of 32 bytes, and one as large as its answer."""
    origin = start(UNARY_ORIGIN, ground.cores.load, ground.directory, ground.stack)
    contestants: list[Contestant] = []
    for name, running in started(ground, origin.port):
        check(running.port)
        tool = H2load("h2c", 4, MESSAGE)
        contestants.append(Contestant(name, running, _UNARY, connections=16, tool=tool))
    samples = run_rounds(contestants, rounds, seconds, ground.say)
    summaries = summarize(samples, "nginx")
    verdict = cost_verdict(samples, ground.variant.name, "envoy", MOST)
    promises = [_runs(ground, contestants), *failures(summaries), verdict]
    kept = [one for one in promises if one is not None]
    return Part("unary", "gRPC, unary", report(summaries), as_json(samples, summaries), kept)


def check(port: int) -> None:
    """Raises ``NoResult`` if a call is not answered with the message."""
    channel: Any
    with grpc.insecure_channel(f"{HOST}:{port}") as channel:
        try:
            answer: bytes = channel.unary_unary(CALL)(MESSAGE[5:], timeout=10)
        except grpc.RpcError as error:
            raise NoResult(f"a call failed: {error}") from error
    if answer != MESSAGE[5:]:
        raise NoResult(f"a call was answered {answer[:80]!r}")


def _runs(ground: Ground, contestants: Sequence[Contestant]) -> Verdict | None:
    if any(one.name == ground.variant.name for one in contestants):
        return None
    return Verdict(f"{ground.variant.name} runs", False, "it was left out, see above", "runs")


Handler = Callable[[Iterator[bytes], Any], Iterator[bytes]]


@contextmanager
def service(handle: Handler) -> Iterator[int]:
    """A gRPC service whose streams are handled so; its port."""

    class Methods(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            return grpc.stream_stream_rpc_method_handler(handle) if details.method == STREAM else None

    server = grpc.server(ThreadPoolExecutor(2 * STREAMS), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Methods(),))
    port: int = server.add_insecure_port(f"{HOST}:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def echo(messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield from messages


@frozen
class Talk:
    """``cost`` is microseconds of CPU for a message there and back."""

    messages: int
    seconds: float
    cost: float


def talk(running: Running, seconds: float, size: int = 32) -> Talk:
    """``STREAMS`` streams over one connection, on each a message as soon as the one before is back."""
    counts = [0] * STREAMS
    ends_at = time.monotonic() + seconds

    def one(number: int, channel: Any) -> None:
        back = threading.Semaphore(1)

        def messages() -> Iterator[bytes]:
            while time.monotonic() < ends_at:
                back.acquire()
                yield b"m" * size

        for _ in channel.stream_stream(STREAM)(messages(), timeout=seconds + 30):
            counts[number] += 1
            back.release()

    before, began = cpu_seconds(running.session), time.monotonic()
    with grpc.insecure_channel(f"{HOST}:{running.port}") as channel, ThreadPoolExecutor(STREAMS) as pool:
        for done in [pool.submit(one, number, channel) for number in range(STREAMS)]:
            try:
                done.result()
            except grpc.RpcError as error:
                raise NoResult(f"a stream failed: {error}") from error
    count = sum(counts)
    if not count:
        raise NoResult("no message came back")
    return Talk(count, time.monotonic() - began, (cpu_seconds(running.session) - before) / count * 1e6)


def streams(ground: Ground, rounds: int, seconds: int) -> Part:
    with service(echo) as port:
        runs = started(ground, port)
        samples: list[Sample] = []
        for number in range(rounds):
            for name, running in runs:
                got = talk(running, seconds)
                ground.say(f"round {number + 1}/{rounds}  {name}: {got.cost:.1f} µs a message")
                samples.append(_sample(name, number, got, memory(running.session).rss))
    rows = [[f"{STREAMS} streams", "CPU µs/message", "times envoy", "messages/s"]]
    for name, _ in runs:
        own = [one for one in samples if one.contestant == name]
        cost, rate = median(one.cost for one in own), median(one.rate for one in own)
        rows.append([name, f"{cost:.1f}", times(ratio(samples, name, "envoy")), f"{rate:,.0f}"])
    verdict = cost_verdict(samples, ground.variant.name, "envoy", MOST)
    return Part("streams", "gRPC, streams", table(rows), as_json(samples, []), [verdict] if verdict else [])


def _sample(name: str, number: int, got: Talk, rss: int) -> Sample:
    spent = got.cost * got.messages / 1e6
    return Sample(name, number, got.messages, 0, 0, got.seconds, spent, 0.0, 0.0, 0.0, rss, rss, rss)
