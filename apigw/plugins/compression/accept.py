"""Which content coding a client wants (RFC 9110 §12.5.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ENTRY = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(?:;\s*[qQ]=([01](?:\.[0-9]{0,3})?)\s*)?").fullmatch
MOST = 32
"""Entries of ``Accept-Encoding`` that are read."""


def chosen(accept: Sequence[str], offered: Sequence[str]) -> str | None:
    """The coding of ``offered`` that the client likes best; among equals the first. None: as it is.

    ``accept`` are the values of ``Accept-Encoding``. What is malformed in them is skipped.
    """
    weights: dict[str, float] = {}
    for entry in ",".join(accept).split(",", MOST)[:MOST]:
        found = _ENTRY(entry)
        if found is not None:
            weights[found[1].lower()] = min(float(found[2] or 1), 1.0)
    if "x-gzip" in weights:
        weights.setdefault("gzip", weights["x-gzip"])
    others = weights.get("*", 0.0)
    best = max(offered, key=lambda coding: weights.get(coding, others))
    weight = weights.get(best, others)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else None
