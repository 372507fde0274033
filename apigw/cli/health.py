"""``apigw health``: whether a running gateway answers, for the health checks of containers."""

from __future__ import annotations

import argparse
import sys

from apigw.cli.admin import Admin, NotAnswered

FOUND, REFUSED = 0, 1


def health(options: argparse.Namespace) -> int:
    """Without ``--admin`` the configuration is read, by modules whose import takes half a second."""
    try:
        admin = Admin.parse(options.admin) if options.admin else _configured(options)
        answer = admin.get("/ready" if options.ready else "/health")
    except (NotAnswered, ValueError) as error:
        print(f"apigw: {error}", file=sys.stderr)
        return REFUSED
    print(f"{admin}: {answer['status']}")
    return FOUND


def _configured(options: argparse.Namespace) -> Admin:
    from apigw.cli.where import admin_of

    return admin_of(options)
