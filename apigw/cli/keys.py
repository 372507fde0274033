"""``apigw keys``: make, list and revoke API keys in a file."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import suppress

from apigw.cli import periods
from apigw.cli.outcome import FOUND, REFUSED
from apigw.policy.auth.api_keys import editing
from apigw.policy.auth.api_keys.records import Record, digest_of, new_key, time_of, time_text

SHOWN = 12
"""Digits of a hash that ``list`` shows: enough to tell millions of keys apart."""


def keys(options: argparse.Namespace) -> int:
    try:
        return {"make": _make, "list": _list, "revoke": _revoke, "sort": _sort}[options.action](options)
    except OSError as error:
        print(f"apigw: {error.filename or options.file}: {error.strerror}", file=sys.stderr)
    except ValueError as error:
        print(f"apigw: {options.file}: {error}", file=sys.stderr)
    return REFUSED


def _make(options: argparse.Namespace) -> int:
    if os.path.exists(options.id) and not os.path.exists(options.file):
        raise ValueError(f"does not exist, but {options.id} does: FILE comes first, then ID")
    key = new_key()
    expires = None if options.expires is None else _when(options.expires, time.time())
    record = Record(digest_of(key.encode()), options.id, tuple(options.role), tuple(options.scope), expires)
    editing.add(options.file, record)
    print(key)
    return FOUND


def _list(options: argparse.Namespace) -> int:
    for record in editing.records(options.file):
        if options.id in (None, record.id):
            said = [record.digest[:SHOWN], record.id]
            said += [f"roles: {', '.join(record.roles)}"] if record.roles else []
            said += [f"scopes: {' '.join(record.scopes)}"] if record.scopes else []
            said += [] if record.expires is None else [f"expires: {time_text(record.expires)}"]
            print("  ".join(said))
    return FOUND


def _revoke(options: argparse.Namespace) -> int:
    removed = editing.remove(options.file, options.id, options.hash)
    if not removed:
        print(f"apigw: {options.file} has no such key", file=sys.stderr)
        return REFUSED
    print(f"{removed} removed; a reload of the gateway ends {'it' if removed == 1 else 'them'}")
    return FOUND


def _sort(options: argparse.Namespace) -> int:
    editing.sort(options.file)
    return FOUND


def _when(text: str, now: float) -> float:
    """The time that ``90d``, ``12h`` or a time in UTC means. Raises ``ValueError``."""
    with suppress(ValueError):
        return float(int(now) + periods.seconds(text))
    try:
        return time_of(text)
    except ValueError:
        raise ValueError(f"--expires {text}: write 90d, 12h, or a time such as 2027-01-31T12:00:00Z") from None
