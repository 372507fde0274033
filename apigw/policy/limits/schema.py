"""The keys of rate limits."""

from __future__ import annotations

from apigw.config.keys import MONTH, Keys, Rule, choice, duration, item, list_of, map_of, text, whole
from apigw.policy.limits.model import LimitsSection, RateLimit

RATE_LIMIT: Rule = {
    "endpoint": text(
        "A path pattern, as in routes. All limits that match a request apply. Or `unmatched`: requests that match no "
        "route.",
        "limited endpoint",
        required=True,
    ),
    "hosts": list_of(
        "Hosts of the requests, as in routes: only these are limited, together.",
        item("route host"),
        minlength=1,
        default="all",
    ),
    "limit": whole("How many requests pass in a window; with `window`.", 1, 1_000_000_000),
    "window": duration("The length of the sliding window.", "1ms", MONTH),
    "concurrent": whole(
        "In place of `limit` and `window`: how many requests of a caller may run at a time.", 1, 1_000_000
    ),
    "scope": choice(
        "Counts by caller (by address, if anonymous), by address (IPv6: by /64), or all requests together.",
        "user",
        "ip",
        "endpoint",
        required=True,
    ),
    "algorithm": choice(
        "`log` (sliding log) is exact, `counter` (sliding counter) is small, `auto` is `log` up to a limit of 1,000.",
        "auto",
        "log",
        "counter",
    ),
    "on_store_failure": choice(
        "While Redis is unavailable, `local` counts in memory, `open` lets requests through, `closed` answers 503.",
        "local",
        "open",
        "closed",
    ),
}

KEYS = (Keys((), LimitsSection, {"rate_limits": list_of("Rate limits.", map_of("", RateLimit, RATE_LIMIT))}),)
