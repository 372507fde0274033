"""``apigw deny``: denies callers on gateways that run, lists denials, and removes them."""

from __future__ import annotations

import argparse
import re
import sys
import time
from hashlib import sha256
from typing import Any

from apigw.cli import periods
from apigw.cli.admin import NotAnswered
from apigw.cli.outcome import FOUND, MISUSE, REFUSED
from apigw.cli.remote import as_json, table
from apigw.cli.where import admin_of, token_of
from apigw.policy.auth.digest import token_digest

PATH = "/denials"

_HASH = re.compile(r"[0-9a-fA-F]{64}").fullmatch


def deny(options: argparse.Namespace) -> int:
    try:
        return {"list": _list, "remove": _remove}.get(options.action, _add)(options)
    except _Misuse as error:
        print(f"apigw: {error}", file=sys.stderr)
        return MISUSE
    except (NotAnswered, ValueError, OSError) as error:
        print(f"apigw: {error}", file=sys.stderr)
        return REFUSED


class _Misuse(Exception):
    """The arguments say nothing that could be asked."""


def _list(options: argparse.Namespace) -> int:
    document = admin_of(options).get(PATH)
    if options.json:
        print(as_json(document))
        return FOUND
    if document["store_up"] is False:
        print("Redis is away: other gateways may have other denials")
    now = time.time()
    rows = [
        (
            each["kind"],
            each["value"] if each["provider"] is None else f"{each['value']} of {each['provider']}",
            _left(each["until"] - now),
            each["by"],
            "all gateways" if each["everywhere"] else "this gateway",
            each["reason"],
        )
        for each in document["denials"]
    ]
    print("\n".join(table(("KIND", "VALUE", "ENDS IN", "BY", "HOLDS ON", "REASON"), rows)))
    return FOUND


def _add(options: argparse.Namespace) -> int:
    wanted = {"action": "add", **_whom(options.action, options), "for": _seconds(options.for_)}
    made = admin_of(options).post(PATH, {**wanted, "reason": options.reason}, token_of(options))
    if options.json:
        print(as_json(made))
        return FOUND
    cut = f"; {made['cut']} WebSockets and streams were cut" if made["cut"] else ""
    print(f"denied for {_left(wanted['for'])}: {made['kind']} {made['value']}{cut}")
    if made["late"]:
        print(f"workers that have not answered yet: {made['late']}; they refuse as soon as they go on")
    return FOUND


def _remove(options: argparse.Namespace) -> int:
    admin_of(options).post(PATH, {"action": "remove", **_whom(options.kind, options)}, token_of(options))
    print("removed")
    return FOUND


def _whom(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Kind and value. Of a secret only its hash leaves this process."""
    is_read = options.value in (None, "-")
    value: str = options.value
    if is_read:
        if kind in ("address", "subject"):
            raise _Misuse(f"no {kind} is given")
        value = sys.stdin.readline().strip()
        if not value:
            raise _Misuse(f"there is no {kind} on the standard input")
    if kind in ("key", "token"):
        if kind == "key" and not is_read and _HASH(value):
            raise _Misuse(
                "64 hexadecimal digits may be a key or its hash: "
                "write sha256:… for a hash, or give a key on standard input"
            )
        value = _digest(kind, value)
    provider = getattr(options, "provider", None)
    return {"kind": kind, "value": value, **({} if provider is None else {"provider": provider})}


def _digest(kind: str, value: str) -> str:
    if value.startswith("sha256:"):
        return value
    if kind == "token":
        scheme, space, rest = value.partition(" ")  # as in a header
        return f"sha256:{token_digest((rest.strip() if space and scheme.lower() == 'bearer' else value).encode())}"
    return f"sha256:{sha256(value.encode()).hexdigest()}"


def _seconds(text: str) -> int:
    try:
        return periods.seconds(text)
    except ValueError as error:
        raise _Misuse(str(error)) from None


def _left(seconds: float) -> str:
    """In the two largest units."""
    left = max(0, round(seconds))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"
