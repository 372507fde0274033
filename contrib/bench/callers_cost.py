"""What it costs to know who calls: API keys of a million, passwords, and allow and deny with 10,000 networks.

``python contrib/bench/callers_cost.py`` processes requests in this process, by turns with and without the stage: pairs
of each, CPU, with the interval that holds nine tenths of the differences. n is told from ``ops_cost``. What is seen for
the first time takes longer than what is remembered, and is told beside it.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from attrs import frozen

if __name__ == "__main__":
    # A script's own directory comes first on the path, and in it ``profile`` would hide the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from apigw import is_compiled
from apigw.contract.exchange import Answer, Exchange, Outcome, Route, Stage
from apigw.contract.peers import Peers
from apigw.contract.ranges import Ranges
from apigw.ops.metrics import Metrics
from apigw.policy.auth.api_keys.model import APIKeys
from apigw.policy.auth.api_keys.opening import by_header
from apigw.policy.auth.basic.passwords import Passwords
from apigw.policy.auth.basic.users import parse
from apigw.policy.auth.method import Method
from apigw.policy.auth.secrets import hash_generated
from apigw.policy.auth.stage import Accepted, Authenticate
from apigw.policy.networks.stage import Admission, Admit
from apigw.proxy.pipeline import Pipeline, Table
from apigw.routing.router import Router
from apigw.routing.trie import Entry
from apigw.wire.headers import Headers
from apigw.wire.request import Request
from bench.ops_cost import USUAL_N
from bench.silent import Silent

PAIRS = 20
REQUESTS = 20_000
"""More than a worker remembers of each kind, so that what is sent in turn is always seen for the first time."""
KEYS = 1_000_000
NETWORKS = 10_000


@frozen
class Call:
    """A request, as far as it says who calls."""

    peer: bytes = b"10.0.0.1"
    fields: tuple[tuple[bytes, bytes], ...] = ()


@frozen
class Kind:
    """``calls`` are sent in turn. ``most`` is how much of n may be added; ``None`` where nothing is promised."""

    name: str
    stage: Stage
    calls: Sequence[Call]
    most: float | None = None


class Done(Stage):
    def __init__(self) -> None:
        self._answer = Answer(200, [(b"content-length", b"0")])
        self.passed = 0

    def run(self, exchange: Exchange) -> Outcome:
        self.passed += 1
        return self._answer


def key(number: int) -> bytes:
    return b"apigw_%043d" % number


def key_file(directory: Path, count: int) -> str:
    """As a program would write it."""
    hashes = sorted((sha256(key(number)).hexdigest(), number) for number in range(count))
    file = directory / "partners.keys"
    with file.open("w") as lines:
        lines.writelines(f"{digest}\tpartner-{number}\tpartner\torders.read\t\n" for digest, number in hashes)
    return str(file)


def authenticate(method: Method) -> Stage:
    return Authenticate(Accepted(method, None), True, None, time.time)


def kinds(directory: Path, keys: int = KEYS) -> list[Kind]:
    """All of them; a file with the keys is made."""
    chance = random.Random(1)
    (api_keys,) = by_header([APIKeys("partners", key_file(directory, keys))], {})
    with_key = [Call(fields=((b"x-api-key", key(chance.randrange(keys))),)) for _ in range(REQUESTS)]
    passwords = Passwords({"ops": parse(f"ada:{hash_generated('secret')}\n".encode())}, _never)
    basic = Call(fields=((b"authorization", b"Basic " + b64encode(b"ada:secret")),))
    known = [f"10.{number >> 8}.{number & 255}.0/25" for number in range(NETWORKS)]
    admit = Admit(Admission([Ranges(known)], [Ranges(["192.0.2.0/24"])], lambda: None))
    networks = [chance.randrange(NETWORKS) for _ in range(REQUESTS)]
    addresses = [Call(b"10.%d.%d.%d" % (each >> 8, each & 255, chance.randrange(128))) for each in networks]
    return [
        Kind("an API key", authenticate(api_keys), with_key[:1], 0.1),
        Kind("first seen", authenticate(api_keys), with_key),
        Kind("a password", authenticate(passwords), [basic], 0.1),
        Kind("an address", admit, addresses[:1], 0.03),
        Kind("first seen", admit, addresses),
    ]


def _never(work: object, name: str, caller: bytes) -> Deferred[bool]:
    raise AssertionError("a generated password that is right waits for no thread")


def pipeline(*stages: Stage) -> Pipeline:
    clock = Clock()
    route = Route("/a", None, None, Metrics(CollectorRegistry(), "bench").route("/a"), stages)
    table = Table(Router([Entry("/a", None, route)]), None, route, Peers(), 1 << 20, False)
    return Pipeline(table, clock.seconds, lambda _: None, lambda _: None)


def microseconds(pipeline: Pipeline, calls: Sequence[Call]) -> float:
    """CPU of one request."""
    streams = [Silent(call.peer) for call in calls] * (REQUESTS // len(calls))
    fields: list[Headers] = [[(b"accept", b"*/*"), *call.fields] for call in calls] * (REQUESTS // len(calls))
    began = time.process_time()
    for stream, headers in zip(streams, fields, strict=True):
        request = Request(stream, b"GET", b"/a", b"/a", b"", b"a.test", headers, b"HTTP/1.1", 0)
        request.body_complete = True
        pipeline.on_request(request)
    return (time.process_time() - began) / REQUESTS * 1e6


def differences(kind: Kind) -> list[float]:
    """Of each pair, sorted."""
    done = Done()
    without, with_ = pipeline(Done()), pipeline(kind.stage, done)
    pairs = []
    for number in range(PAIRS):
        first, second = (without, with_) if number % 2 else (with_, without)
        one, other = microseconds(first, kind.calls), microseconds(second, kind.calls)
        pairs.append(other - one if number % 2 else one - other)
    if done.passed != PAIRS * REQUESTS:
        raise AssertionError(f"{kind.name}: not everybody was let in")
    return sorted(pairs)


def main() -> int:
    """0 when the promises are kept, 1 when one is not."""
    print("compiled" if is_compiled() else "plain Python", f"n = {USUAL_N} µs; median of {PAIRS} pairs [5 %, 95 %]")
    kept = True
    with tempfile.TemporaryDirectory() as directory:
        for kind in kinds(Path(directory)):
            found = differences(kind)
            share = found[PAIRS // 2] / USUAL_N
            line = f"{kind.name:10} {found[PAIRS // 2]:6.2f} µs [{found[1]:.2f}, {found[-2]:.2f}]  {share:.3f} n"
            if kind.most is not None:
                kept &= share <= kind.most
                line += f", may be {kind.most} n"
            print(line, flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
