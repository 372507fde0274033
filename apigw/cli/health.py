"""``apigw health``: whether a running gateway answers, for the health checks of containers."""

from __future__ import annotations

import argparse
import sys

from apigw.cli.admin import Admin, NotAnswered

FOUND, REFUSED = 0, 1


def health(options: argparse.Namespace) -> int:
    """Without ``--admin`` the configuration is loaded, which takes half a second."""
    try:
        admin = Admin.parse(options.admin) if options.admin else _configured(options.config)
        answer = admin.get("/ready" if options.ready else "/health")
    except (NotAnswered, ValueError) as error:
        print(f"apigw: {error}", file=sys.stderr)
        return REFUSED
    print(f"{admin}: {answer['status']}")
    return FOUND


def _configured(directory: str) -> Admin:
    from apigw.cli.outcome import loaded

    config = loaded(directory)
    if config is None:
        raise ValueError(f"{directory} has problems")
    return Admin.of_endpoint(config.gateway.admin)
