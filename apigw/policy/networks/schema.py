"""The keys of networks."""

from __future__ import annotations

from apigw.config.keys import Keys, Rule, item, list_of
from apigw.policy.networks.model import Networks


def networks(whose: str) -> Rule:
    return {
        "allow": list_of(
            f"Networks of clients that may call {whose}; others are answered 403 [`address_denied`](networks.md). "
            "`unix:` for peers of a unix socket.",
            item("proxy"),
            minlength=1,
            nullable=True,
            default="everybody",
        ),
        "deny": list_of(f"Networks of clients that may not call {whose}, also where `allow` has them.", item("proxy")),
    }


KEYS = (
    Keys(("gateway",), Networks, networks("any route")),
    Keys(("routes",), Networks, networks("the route")),
)
