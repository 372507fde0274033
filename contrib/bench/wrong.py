"""Wrong credentials of each kind, 500 a second from as many addresses, under a load of GETs.

How much later others are answered is told, and whether callers get in whose right credential the gateway has not seen
before. Addresses are those of ``X-Forwarded-For``, as the load is a trusted proxy.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qs

from attrs import evolve, frozen

from apigw.policy.auth.api_keys.records import HEADER, Record, digest_of, new_key, rendered
from apigw.policy.auth.secrets import hash_secret
from bench.figures import Verdict
from bench.ground import Ground, address_of
from bench.load import encode
from bench.machine import cpu_seconds
from bench.offered import Offered, offer
from bench.programs import HOST, REPOSITORY, Document, Place, Program, start
from bench.rounds import start_origin
from bench.scenarios import BARE, USER_ROUTE, document
from bench.tokens import ISSUER, authorizations, public_key

RATE = 500
GOOD_RATE = 4
"""Right credentials a second that are new to the gateway: a chosen password takes a core 40 ms."""
OTHERS = 500
"""GETs a second, which need no credential."""
MOST_LATER = 50.0
"""Milliseconds, at the 99th percentile."""
GUARDED = "/guarded"
PASSWORD = "correct+horse/battery=staple"

Headers = tuple[tuple[str, str], ...]


@frozen
class Kind:
    """``wrong`` are credentials without end, ``good`` so many that are right. ``section`` is what ``auth`` has."""

    name: str
    section: Callable[[Place, Sequence[Headers]], Document]
    wrong: Callable[[], Iterator[Headers]]
    good: Callable[[int], list[Headers]]
    beside: tuple[Program, ...] = ()


def _tokens(place: Place, good: Sequence[Headers]) -> Document:
    (place.directory / "token.pem").write_bytes(public_key())
    return {"jwt": [{"name": "bench", "algorithm": "RS256", "public_key_file": "token.pem", "issuer": ISSUER}]}


def _forgeries() -> Iterator[Headers]:
    (right,) = authorizations()
    signed = right.rpartition(".")[0]
    while True:
        yield (("Authorization", f"{signed}.{secrets.token_urlsafe(256)}"),)


def _keys(place: Place, good: Sequence[Headers]) -> Document:
    records = [Record(digest_of(key.encode()), f"id-{at}") for at, ((_, key),) in enumerate(good)]
    lines = sorted(map(rendered, records))
    (place.directory / "partners.keys").write_text("".join((HEADER, *lines)))
    return {"api_keys": [{"name": "bench", "file": "partners.keys"}]}


def _basic(name: str, password: str) -> Headers:
    return (("Authorization", "Basic " + b64encode(f"{name}:{password}".encode()).decode()),)


def _passwords(place: Place, good: Sequence[Headers]) -> Document:
    """Of those who call, and of five others."""
    names = [*(f"user{at}" for at in range(len(good))), *(f"other{at}" for at in range(5))]
    lines = [f"{name}:{hash_secret(PASSWORD)}\n" for name in names]
    (place.directory / "users").write_text("".join(lines))
    return {"basic": [{"name": "bench", "file": "users"}]}


def _guesses() -> Iterator[Headers]:
    """At five names that exist. Who has one of these waits, too, unless a right password is remembered."""
    while True:
        yield _basic(f"other{secrets.randbelow(5)}", secrets.token_urlsafe(12))


def _invented() -> Iterator[Headers]:
    while True:
        yield _basic(secrets.token_hex(8), secrets.token_urlsafe(12))


def _opaque(place: Place, good: Sequence[Headers]) -> Document:
    url = f"http://{HOST}:{place.origins[1]}/introspect"
    return {"introspection": [{"name": "bench", "url": url, "client_id": "gateway", "client_secret": PASSWORD}]}


SERVER = Program(
    name="authorization server",
    executable=sys.executable,
    argv=lambda place: [sys.executable, "-m", "bench.wrong", "server", str(place.port)],
    path=(str(REPOSITORY / "contrib"), str(REPOSITORY)),
)

KINDS = (
    Kind(
        "tokens (RS256)",
        _tokens,
        _forgeries,
        lambda count: [(("Authorization", value),) for value in authorizations(count)],
    ),
    Kind(
        "API keys",
        _keys,
        lambda: iter(lambda: (("X-API-Key", new_key()),), None),
        lambda count: [(("X-API-Key", new_key()),) for _ in range(count)],
    ),
    Kind("passwords of five other users", _passwords, _guesses, lambda count: _users(count)),
    Kind("passwords of invented users", _passwords, _invented, lambda count: _users(count)),
    Kind(
        "opaque tokens",
        _opaque,
        lambda: iter(lambda: (("Authorization", f"Bearer {secrets.token_urlsafe(24)}"),), None),
        lambda count: [(("Authorization", f"Bearer good-{secrets.token_urlsafe(24)}"),) for _ in range(count)],
        (SERVER,),
    ),
)


def _users(count: int) -> list[Headers]:
    return [_basic(f"user{at}", PASSWORD) for at in range(count)]


def _config(kind: Kind, good: Sequence[Headers], place: Place) -> Document:
    routes: list[Document] = [{**USER_ROUTE, "auth": "none"}, {"path": GUARDED, "service": "origin"}]
    made = document(evolve(place, origins=place.origins[:1]), routes)
    gateway = {**made["gateway"], "trusted_proxies": ["127.0.0.0/8"]}
    return {**made, "gateway": gateway, "auth": kind.section(place, good)}


def _from_addresses(credentials: Sequence[Headers], first: int) -> list[str]:
    """Requests, each from an address of its own, in as many networks."""
    requests = []
    for at, headers in enumerate(credentials):
        address = f"{first}.{at >> 8 & 255}.{at & 255}.{secrets.randbelow(256)}"
        requests.append(encode(GUARDED, headers=(("X-Forwarded-For", address), *headers)).decode())
    return requests


def _sending(ground: Ground, name: str, port: int, rate: int, requests: list[str]) -> subprocess.Popen[bytes]:
    """A process that sends these, and says at its end what came of them."""
    file = ground.directory / f"{name}.json"
    file.write_text(json.dumps(requests))
    argv = [sys.executable, "-m", "bench.wrong", "send", str(port), str(rate), str(file)]
    return subprocess.Popen(
        argv, cwd=REPOSITORY / "contrib", stdout=subprocess.PIPE, env={"PYTHONPATH": str(REPOSITORY)}
    )


def check(ground: Ground, seconds: int = 5, rate: int = RATE) -> list[Verdict]:
    """One kind after the other, each with a gateway of its own."""
    origin = start_origin(ground.cores.load, ground.directory, ground.stack, ground.say)
    verdicts = []
    for kind in KINDS:
        ground.say(f"wrong {kind.name}, {rate} a second")
        good = kind.good(GOOD_RATE * seconds)
        beside = [start(each, ground.cores.load, ground.directory, ground.stack).port for each in kind.beside]
        gateway = ground.gateway(lambda place: _config(kind, good, place), (origin.port, *beside))  # noqa: B023

        def gateway_cpu() -> float:
            return cpu_seconds(gateway.session)  # noqa: B023

        def others() -> Offered:
            request = encode(BARE.path, headers=BARE.headers)
            return offer(address_of(gateway), request, b"", OTHERS, seconds, 16)  # noqa: B023

        before = gateway_cpu()
        calm = others()
        between = gateway_cpu()
        wrong = list(islice(kind.wrong(), rate * seconds))
        sending = [
            _sending(ground, "wrong", gateway.port, rate, _from_addresses(wrong, 10)),
            _sending(ground, "good", gateway.port, GOOD_RATE, _from_addresses(good, 11)),
        ]
        busy = others()
        statuses, served = (Counter(json.loads(each.communicate()[0])) for each in sending)
        more = gateway_cpu() - between - (between - before)
        gateway.stop()
        verdicts.append(_verdict(f"{rate} wrong {kind.name} a second", calm, busy, statuses, served, more))
    return verdicts


def _verdict(
    promise: str, calm: Offered, busy: Offered, statuses: Counter[str], served: Counter[str], more: float
) -> Verdict:
    later = busy.percentile(0.99) - calm.percentile(0.99)
    refused = statuses.total() == statuses["401"] + statuses["503"] + statuses["429"] and statuses.total() > 0
    kept = refused and later < MOST_LATER and not busy.failed and served["200"] == served.total() > 0
    told = ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))
    seen = (
        f"{served['200']} of {served.total()} right ones got in; others: p99 {calm.percentile(0.99):.1f} → "
        f"{busy.percentile(0.99):.1f} ms, {busy.failed} of {busy.due:,} failed; the load itself was late by "
        f"{busy.late * 1e3:.1f} ms; the wrong ones: {told}, {more / max(statuses.total(), 1) * 1e6:.0f} µs of CPU each"
    )
    return Verdict(promise, kept, seen, f"all get in, and p99 grows by less than {MOST_LATER:.0f} ms")


async def _send(port: int, rate: int, requests: Sequence[str]) -> Counter[str]:
    """Each when it is due, on a connection that is free, or else a new one. Counts the statuses."""
    statuses: Counter[str] = Counter()
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one(request: str) -> None:
        try:
            reader, writer = idle.pop() if idle else await asyncio.open_connection(HOST, port)
            writer.write(request.encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await reader.readexactly(int(fields[b"content-length"]))
            idle.append((reader, writer))
            statuses[head.split(b" ", 2)[1].decode()] += 1
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            statuses[type(error).__name__] += 1

    begun = time.monotonic()
    tasks = []
    for at, request in enumerate(requests):
        await asyncio.sleep(begun + at / rate - time.monotonic())
        tasks.append(asyncio.create_task(one(request)))
    await asyncio.gather(*tasks)
    return statuses


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An authorization server: tokens are active that begin with ``good-``. It takes 10 ms."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        form = parse_qs((await reader.readexactly(int(fields[b"content-length"]))).decode())
        [token] = form["token"]
        await asyncio.sleep(0.01)
        said = {"active": token.startswith("good-"), "sub": sha256(token.encode()).hexdigest()}
        body = json.dumps(said).encode()
        writer.write(b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n%s" % (HTTPStatus.OK, len(body), body))


async def _serve(port: int) -> None:
    async with await asyncio.start_server(_answer, HOST, port) as server:
        await server.serve_forever()


def _sent(port: str, rate: str, file: str) -> None:
    requests: list[str] = json.loads(Path(file).read_text())
    print(json.dumps(asyncio.run(_send(int(port), int(rate), requests))))


if __name__ == "__main__":
    if sys.argv[1] == "server":
        asyncio.run(_serve(int(sys.argv[2])))
    else:
        _sent(*sys.argv[2:])
