"""``apigw limits`` and ``apigw circuits``: a client of the admin listener, and tables of its answers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from apigw.cli.admin import Document, NotAnswered
from apigw.cli.outcome import FOUND, MISUSE, REFUSED
from apigw.cli.where import admin_of, token_of
from apigw.config.units import counted


def limits(options: argparse.Namespace) -> int:
    try:
        document = admin_of(options).get("/limits")
    except (NotAnswered, ValueError) as error:
        return _complain(error)
    print(as_json(document) if options.json else limits_table(document))
    return FOUND


def circuits(options: argparse.Namespace) -> int:
    if (options.action is None) != (options.service is None):
        print(f"apigw: {options.action} needs the name of a service", file=sys.stderr)
        return MISUSE
    try:
        admin = admin_of(options)
        if options.action is None:
            document = admin.get("/circuits")
            shown = document["circuits"]
        else:
            wanted = {"service": options.service, "action": options.action}
            document = admin.post("/circuits", wanted, token_of(options))
            shown = [document]
    except (NotAnswered, ValueError, OSError) as error:
        return _complain(error)
    print(as_json(document) if options.json else circuits_table(shown))
    return FOUND


def as_json(document: object) -> str:
    return json.dumps(document, indent=2)


def _complain(error: Exception) -> int:
    print(f"apigw: {error}", file=sys.stderr)
    return REFUSED


def limits_table(document: Document) -> str:
    """The answer of ``/limits`` as a table."""
    store = document["store"]
    keys = f"keys in this gateway: {store['keys']}"
    if store["kind"] == "redis":
        state = "" if store["up"] else ", which is unavailable"
        lines = [f"counted in Redis{state}; {keys}; checks decided without Redis: {store['fallbacks']}"]
    else:
        lines = [f"counted in memory; {keys}"]
    rows = [
        (
            one["endpoint"],
            one["scope"],
            _number(one),
            one.get("algorithm", "-"),
            one["on_store_failure"],
            one["keys"],
            one["violations"],
        )
        for one in document["limits"]
    ]
    headings = ("ENDPOINT", "SCOPE", "LIMIT", "ALGORITHM", "ON STORE FAILURE", "KEYS", "REFUSED")
    return "\n".join([*lines, *table(headings, rows)])


def _number(limit: Document) -> str:
    dry = ", dry run" if limit.get("dry_run") else ""
    if "concurrent" in limit:
        return f"{limit['concurrent']} at a time, {limit['taken']} taken{dry}"
    return f"{limit['limit']} in {limit['window']:g} s{dry}"


def circuits_table(circuits: Sequence[Document]) -> str:
    """The services of ``/circuits`` as a table: a line for each service, followed by one for each target."""
    rows: list[tuple[object, ...]] = []
    for one in circuits:
        if one["state"] is None:
            rows.append((one["service"], "no circuit breaker", *[""] * 5))
        else:
            held = " (by hand)" if one["forced"] else ""
            failed = f"{one['failures']} of {one['total']}"
            since, retry = _seconds(one["since"]), _seconds(one["retry_in"])
            rows.append((one["service"], one["state"] + held, since, failed, retry, one["opened"], one["why"]))
        for target in one["targets"]:
            health = "in use" if target["available"] else "unhealthy" if not target["healthy"] else "ejected"
            rows.append((f"  {target['target']}", health, *[""] * 4, counted(target["connections"], "connection")))
    return "\n".join(table(("SERVICE", "STATE", "SINCE", "FAILED", "RETRY IN", "OPENED", "WHY"), rows))


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines with aligned columns. Control characters are escaped."""
    texts = [headings, *([_printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts]


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
