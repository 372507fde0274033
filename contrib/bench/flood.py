"""A flood of wrong client secrets, and of tokens with a wrong signature, under a load of GETs.

Nobody else may fail; how much slower it gets for the others is told.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from functools import partial
from itertools import repeat

from apigw.policy.auth.secrets import hash_secret
from bench.figures import Verdict
from bench.ground import Ground, address_of
from bench.load import Address, Load, Request, Tally, encode, explain
from bench.programs import Document, Place
from bench.rounds import start_origin
from bench.scenarios import BARE, USER_ROUTE, document
from bench.tokens import ISSUER, authorizations, public_key

FORM = (("Content-Type", "application/x-www-form-urlencoded"),)
WIDE = 1_000_000
GUARDED = "/guarded"


def _with_tokens(place: Place, limit: int) -> Document:
    """A wrong RS256 token is verified each time, as only right ones are remembered: the dearest of the 401s."""
    (place.directory / "token.pem").write_bytes(public_key())
    verifier = {"name": "bench", "algorithm": "RS256", "public_key_file": "token.pem", "issuer": ISSUER}
    routes: list[Document] = [{**USER_ROUTE, "auth": "none"}, {"path": GUARDED, "service": "origin"}]
    limits = [{"endpoint": GUARDED, "limit": limit, "window": "60s", "scope": "ip"}]
    return {**document(place, routes), "auth": {"jwt": [verifier]}, "rate_limits": limits}


def _forgeries() -> Iterator[Request]:
    (right,) = authorizations()
    signed = right.rpartition(".")[0]
    while True:
        forged = f"{signed}.{secrets.token_urlsafe(256)}"
        yield Request(encode(GUARDED, headers=(*BARE.headers, ("Authorization", forged))))


def _with_secrets(place: Place, limit: int) -> Document:
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


async def _during(
    address: Address, seconds: float, connections: int, guessing: int, guesses: Iterator[Request]
) -> tuple[Tally, Tally]:
    """What became of the GETs, and of the guesses."""
    load = Load(address, repeat(Request(encode(BARE.path, headers=BARE.headers))), connections)
    flood = Load(address, guesses, guessing)
    running = [asyncio.create_task(one.run()) for one in ((load, flood) if guessing else (load,))]
    await asyncio.sleep(seconds)
    flood.stop()
    load.stop()
    await asyncio.gather(*running)
    return load.tally, flood.tally


async def check(ground: Ground, connections: int = 16, seconds: float = 3.0, guessing: int = 64) -> list[Verdict]:
    """Secrets with the limits as they are by default, then so wide that only the room for hashing is limited. Tokens
    with a limit by address, to which each 401 is charged, then without."""
    origin = start_origin(ground.cores.load, ground.directory, ground.stack, ground.say)
    verdicts = []
    for what, name, config, limit, guess in (
        ("secrets", "limits as by default", _with_secrets, 10, _guesses),
        ("secrets", "without limits", _with_secrets, WIDE, _guesses),
        ("tokens", "a limit by address", _with_tokens, 100, _forgeries),
        ("tokens", "without limits", _with_tokens, WIDE, _forgeries),
    ):
        gateway = ground.gateway(partial(config, limit=limit), (origin.port,))
        calm, _ = await _during(address_of(gateway), seconds, connections, 0, guess())
        other, guesses = await _during(address_of(gateway), seconds, connections, guessing, guess())
        gateway.stop()
        kinds = ", ".join(f"{count:,} × {status}" for status, count in sorted(guesses.statuses.items()))
        seen = (
            f"{len(other.failures)} of {other.answered + len(other.failures):,} other requests failed; p50 "
            f"{calm.percentile(0.5) * 1e3:.1f} → {other.percentile(0.5) * 1e3:.1f} ms, p99 "
            f"{calm.percentile(0.99) * 1e3:.1f} → {other.percentile(0.99) * 1e3:.1f} ms; guesses: {kinds}"
        )
        cheaply = guesses.statuses[429] + guesses.statuses[503] > guesses.statuses[401]
        bounded = what == "secrets" or limit < WIDE
        kept = not other.failures and other.answered > 0 and cheaply == bounded and not guesses.statuses[200]
        promise = f"{guessing} clients with wrong {what}, {name}"
        wanted = "none fails, most guesses refused unchecked" if bounded else "none fails, and none gets in"
        verdicts.append(Verdict(promise, kept, seen, wanted, explain(other.failures)))
    return verdicts
