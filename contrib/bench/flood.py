"""A flood of wrong client secrets under a load of GETs: nobody else fails, and how much slower it gets for them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from itertools import repeat

from apigw.policy.oauth.client_secrets import hash_secret
from bench.figures import Verdict
from bench.ground import Ground, address_of
from bench.load import Address, Load, Request, Tally, encode, explain
from bench.programs import Document, Place
from bench.rounds import start_origin
from bench.scenarios import BARE, USER_ROUTE, document

FORM = (("Content-Type", "application/x-www-form-urlencoded"),)
WIDE = 1_000_000


def _config(place: Place, limit: int) -> Document:
    """Its one client has a chosen secret, which is dear to check."""
    oauth = {
        "signing": {"algorithm": "RS256", "key_id": "bench"},
        "issuer": "https://gateway.example.com",
        "rate_limit": {"limit": limit, "window": "60s"},
        "clients": [{"id": "partner", "secret_hash": [hash_secret(secrets.token_urlsafe(24))]}],
    }
    return {**document(place, [{**USER_ROUTE, "auth": "none"}]), "auth": {"oauth": oauth}}


def _guesses() -> Iterator[Request]:
    while True:
        body = f"grant_type=client_credentials&client_id=partner&client_secret={secrets.token_urlsafe(24)}"
        yield Request(encode("/oauth/token", "POST", FORM, body.encode()))


async def _during(address: Address, seconds: float, connections: int, guessing: int) -> tuple[Tally, Tally]:
    """What became of the GETs, and of the guesses."""
    load = Load(address, repeat(Request(encode(BARE.path, headers=BARE.headers))), connections)
    flood = Load(address, _guesses(), guessing)
    running = [asyncio.create_task(one.run()) for one in ((load, flood) if guessing else (load,))]
    await asyncio.sleep(seconds)
    flood.stop()
    load.stop()
    await asyncio.gather(*running)
    return load.tally, flood.tally


async def check(ground: Ground, connections: int = 16, seconds: float = 3.0, guessing: int = 64) -> list[Verdict]:
    """With the limits as they are by default, then so wide that only the room for hashing is limited."""
    origin = start_origin(ground.cores.load, ground.directory, ground.stack, ground.say)
    verdicts = []
    for name, limit in (("limits as by default", 10), ("without limits", WIDE)):
        gateway = ground.gateway(lambda place, limit=limit: _config(place, limit), (origin.port,))  # type: ignore[misc]
        calm, _ = await _during(address_of(gateway), seconds, connections, 0)
        other, guesses = await _during(address_of(gateway), seconds, connections, guessing)
        gateway.stop()
        kinds = ", ".join(f"{count:,} × {status}" for status, count in sorted(guesses.statuses.items()))
        seen = (
            f"{len(other.failures)} of {other.answered + len(other.failures):,} other requests failed; p50 "
            f"{calm.percentile(0.5) * 1e3:.1f} → {other.percentile(0.5) * 1e3:.1f} ms, p99 "
            f"{calm.percentile(0.99) * 1e3:.1f} → {other.percentile(0.99) * 1e3:.1f} ms; guesses: {kinds}"
        )
        refused = guesses.statuses[429] + guesses.statuses[503] > guesses.statuses[401]
        kept = not other.failures and other.answered > 0 and refused
        promise, wanted = f"{guessing} clients with wrong secrets, {name}", "none fails, most guesses refused unhashed"
        verdicts.append(Verdict(promise, kept, seen, wanted, explain(other.failures)))
    return verdicts
