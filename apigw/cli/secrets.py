"""``apigw hash-secret``: make the hash of an OAuth client's secret."""

from __future__ import annotations

import argparse
import sys
from getpass import getpass

from apigw.cli.outcome import FOUND, REFUSED
from apigw.policy.auth import secrets as client_secrets


def hash_secret(options: argparse.Namespace) -> int:
    if options.generate:
        secret = client_secrets.new_secret()
        print(f"secret: {secret}\nhash:   {client_secrets.hash_generated(secret)}")
        return FOUND
    try:
        print(client_secrets.hash_secret(_read_secret()))
    except ValueError as error:
        print(f"apigw: {error}", file=sys.stderr)
        return REFUSED
    return FOUND


def _read_secret() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    secret = getpass("secret: ")
    if getpass("again: ") != secret:
        raise ValueError("the two entries differ")
    return secret
