"""The keys of rate limits."""

from __future__ import annotations

from apigw.config.keys import MONTH, Keys, Rule, choice, duration, list_of, map_of, text, whole
from apigw.policy.limits.model import LimitsSection, RateLimit

RATE_LIMIT: Rule = {
    "endpoint": text(
        "A path pattern, as in routes; all limits that match a request apply. Or `unmatched`: requests that no route "
        "matches.",
        "limited endpoint",
        required=True,
    ),
    "limit": whole("So many requests pass; with `window`.", 1, 1_000_000_000),
    "window": duration("In any time as long as this.", "1ms", MONTH),
    "concurrent": whole("In place of `limit` and `window`: so many requests of a caller at a time.", 1, 1_000_000),
    "scope": choice(
        "Counts for each caller (its address without one), each address (IPv6: each /64), or all together.",
        "user",
        "ip",
        "endpoint",
        required=True,
    ),
    "algorithm": choice(
        "`log` is exact, `counter` needs little memory, `auto` is `log` up to a limit of 1,000.",
        "auto",
        "log",
        "counter",
    ),
    "on_store_failure": choice(
        "Without Redis, `local` counts in memory, `open` lets through, `closed` answers 503.", "local", "open", "closed"
    ),
}

KEYS = (Keys((), LimitsSection, {"rate_limits": list_of("How often.", map_of("", RateLimit, RATE_LIMIT))}),)
