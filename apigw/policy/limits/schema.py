"""The keys of rate limits."""

from __future__ import annotations

from apigw.config.keys import MONTH, Keys, Rule, choice, duration, item, list_of, map_of, switch, text, whole
from apigw.config.schema import conditions
from apigw.policy.auth.claims_schema import claims
from apigw.policy.limits.model import By, LimitsOfGateway, LimitsOfRoute, LimitsSection, RateLimit

PLACE: Rule = {
    "route": text("The name of the route that is limited.", "route name", default="none; `endpoint` is the other way"),
    "endpoint": text(
        "A path pattern, as in routes. All limits that match a request apply. Or `unmatched`: requests that match no "
        "route.",
        "limited endpoint",
        default="none; `route` is the other way",
    ),
    "hosts": list_of(
        "Hosts of the requests, as in routes: only these are limited, together.",
        item("route host"),
        minlength=1,
        default="all",
    ),
}

BY: Rule = {
    "type": ["string", "dict"],
    "form": "counted by",
    "schema": {
        "header": text("The value of this header of the request.", "token", default="none"),
        "claim": text("The value of this claim of the caller, with dots into nested ones.", "claim", default="none"),
    },
    "meta": {"doc": "", "model": By},
}

LIMIT: Rule = {
    "limit": whole(
        "How many requests pass in a window; with `window`.", 1, 1_000_000_000, like="100, beside window: 60s"
    ),
    "window": duration("The length of the sliding window.", "1ms", MONTH),
    "concurrent": whole(
        "In place of `limit` and `window`: how many requests of a caller may run at a time.", 1, 1_000_000
    ),
    "by": {
        "type": ["string", "list"],
        "form": "counted by",
        "schema": BY,
        "minlength": 1,
        "meta": {
            "doc": "[What it counts by](limits.md#whom-a-limit-counts-by): the caller (by address, if anonymous), the "
            "address (IPv6: by /64), a header, a claim; several together are one key. What is missing counts by "
            "address.",
            "default": "none; `scope` is the short form",
        },
    },
    "scope": choice(
        "The short form of `by`: by caller (by address, if anonymous), by address, or all requests together.",
        "user",
        "ip",
        "endpoint",
        default="none; one of `scope` and `by` is required",
    ),
    "plan": text(
        "The name of the [plan](limits.md#plans) that it belongs to. Of the plans for one route or endpoint, the first "
        "that fits the caller counts.",
        "name",
        default="none; with one of the following it is a plan, too",
    ),
    "roles": list_of("For callers with one of these roles.", item("role"), minlength=1, default="any"),
    "claims": claims("For callers whose claims are these."),
    "headers": conditions("For requests whose headers are these, by name."),
    "providers": list_of(
        "For callers that one of these providers vouches for.", item("name"), minlength=1, default="any"
    ),
    "principals": list_of("For callers with one of these ids.", item("id"), minlength=1, default="any"),
    "dry_run": switch("Count and refuse nothing; metrics and the log tell what would have been refused."),
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

MEANT = {
    "path": "'endpoint'",
    **dict.fromkeys(("rate", "requests", "count", "rps"), "'limit' and 'window'"),
    **dict.fromkeys(("per", "period", "interval", "unit"), "'window'"),
    "key": "'by'",
    **dict.fromkeys(("second", "minute", "hour", "day"), "'limit' and 'window'"),
}

INSTEAD = {
    **dict.fromkeys(("policy", "storage", "store"), "with a redis section, counts are there; else in memory"),
    "burst": "a limit with a short window, in an entry of its own, bounds bursts",
}
"""What others call it."""

BESIDE: Rule = map_of(
    "", RateLimit, LIMIT, meant={**MEANT, **dict.fromkeys(PLACE, "rate_limits, at the top")}, instead=INSTEAD
)
BESIDE["meta"]["shared"] = True  # the reference explains them once

OF_ROUTE: Rule = {
    "rate_limits": list_of(
        "Limits of this route: those of [`rate_limits`](#rate_limits), without `route`, `endpoint` and `hosts`.", BESIDE
    ),
}

OF_GATEWAY: Rule = {
    "rate_limit_fields": choice(
        "What answers say of limits: `X-RateLimit-*` (`usual`), the fields of the IETF's "
        "[draft](limits.md#what-the-client-sees) (`RateLimit`, `RateLimit-Policy`), both, or none.",
        "usual",
        "draft",
        "both",
        "none",
    ),
}

KEYS = (
    Keys(
        (),
        LimitsSection,
        {
            "rate_limits": list_of(
                "Rate limits.", map_of("", RateLimit, {**PLACE, **LIMIT}, meant=MEANT, instead=INSTEAD)
            )
        },
    ),
    Keys(("routes",), LimitsOfRoute, OF_ROUTE),
    Keys(("gateway",), LimitsOfGateway, OF_GATEWAY),
)
