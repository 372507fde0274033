"""``apigw routes``: show which route a request would take, and what the route demands."""

from __future__ import annotations

import argparse
import sys

from apigw.admin.explain import Asked, explain, header
from apigw.cli.listing import listed
from apigw.cli.outcome import FOUND, MISUSE, REFUSED, loaded
from apigw.routing.configured import entry_of
from apigw.routing.router import Router


def routes(options: argparse.Namespace) -> int:
    config = loaded(options.directory)
    if config is None:
        return REFUSED
    if options.method is None:
        for line in listed(config):
            print(line)
        return FOUND
    try:
        headers = [header(text) for text in options.header]
    except ValueError as error:
        print(error, file=sys.stderr)
        return MISUSE
    hosts = [value for name, value in headers if name == b"host"]
    host = hosts[0] if hosts and not options.host else options.host.encode("utf-8", "surrogateescape")
    router = Router(entry_of(route, index) for index, route in enumerate(config.routes))
    asked = Asked(options.method, options.path, host, headers)
    explained = explain(config, router, lambda index: index, asked)
    for line in explained.lines:
        print(line)
    return FOUND if explained.found else REFUSED
