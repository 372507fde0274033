"""The keys of maintenance."""

from __future__ import annotations

from apigw.config.keys import DAY, Keys, Rule, duration, switch_or_map
from apigw.policy.maintenance.model import Maintenance, MaintenanceOf

MAINTENANCE: Rule = {"retry_after": duration("What `Retry-After` says.", "1s", DAY)}


def maintenance(what: str) -> Rule:
    return {
        "maintenance": switch_or_map(
            f"Whether requests of the {what} are answered 503 [`maintenance`](rewriting.md#maintenance).",
            Maintenance,
            MAINTENANCE,
            like="{retry_after: 5m}",
        )
    }


KEYS = (
    Keys(("routes",), MaintenanceOf, maintenance("route")),
    Keys(("services",), MaintenanceOf, maintenance("service")),
)
