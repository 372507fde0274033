"""The keys of external checks."""

from __future__ import annotations

from apigw.config.keys import Keys, Rule, duration, item, list_of, map_of, named, text
from apigw.policy.check.model import Check, CheckOfRoute, ChecksSection

CHECK: Rule = {
    "url": text("Asked by GET. It is used as it is.", "url", required=True),
    "send": list_of("Headers of the request that it gets.", item("check header")),
    "take": list_of(
        "Headers of its answer that the service gets. Clients cannot set them on any route.", item("check header")
    ),
    "timeout": duration("How long the whole answer may take; then 503 `auth_unavailable`.", "1ms", "1m"),
    "cache": duration("How long a pass is remembered for requests that would send the same.", "0s", "1h"),
}

SECTION: Rule = {
    "checks": named(
        "Programs that decide about requests, by name. [More](external-checks.md).",
        map_of(
            "", Check, CHECK, like='{url: "http://…"}', meant=dict.fromkeys(("address", "endpoint", "uri"), "'url'")
        ),
    ),
}

OF_ROUTE: Rule = {
    "check_with": text("The name of the check that decides about its requests.", "name", nullable=True),
}

MEANT = dict.fromkeys(("check", "checks", "forward_auth", "auth_request", "ext_authz"), "'check_with'")

KEYS = (Keys((), ChecksSection, SECTION), Keys(("routes",), CheckOfRoute, OF_ROUTE, MEANT))
