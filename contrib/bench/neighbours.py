"""The programs beside which the gateway is measured, each with the request that is sent through it."""

from __future__ import annotations

from attrs import frozen

from bench import envoy, nginx, node
from bench.programs import HOST, Program
from bench.scenarios import ALL, ALL_ES256, ALL_FIRST_SEEN, BARE, Scenario


@frozen
class Neighbour:
    """``scenario`` says what is asked for: bare, or with the token that goes with every policy."""

    program: Program
    scenario: Scenario = BARE


_HAPROXY = """\
global
    nbthread 1
    maxconn 8000
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    http-reuse always
frontend public
    bind {host}:{port}
    default_backend origin
backend origin
    server one {host}:{origin}
"""
HAPROXY = Program(
    name="haproxy",
    executable="haproxy",
    argv=lambda _: ["haproxy", "-db", "-f", "haproxy.cfg"],
    files=lambda place: {"haproxy.cfg": _HAPROXY.format(host=HOST, port=place.port, origin=place.origins[0])},
    version=("haproxy", "-v"),
)

# By default it keeps 32 connections to the origin, and would measure reconnecting with the rest.
_CADDY = """\
{{
    admin off
    auto_https off
    persist_config off
    storage file_system storage
}}
http://{host}:{port} {{
    bind {host}
    reverse_proxy {host}:{origin} {{
        transport http {{
            keepalive_idle_conns_per_host 8192
        }}
    }}
}}
"""
CADDY = Program(
    name="caddy",
    executable="caddy",
    argv=lambda _: ["caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile"],
    files=lambda place: {"Caddyfile": _CADDY.format(host=HOST, port=place.port, origin=place.origins[0])},
    version=("caddy", "version"),
)

NEIGHBOURS = (
    Neighbour(nginx.BARE),
    Neighbour(nginx.LIMIT_AND_LOG),
    Neighbour(HAPROXY),
    Neighbour(envoy.BARE),
    Neighbour(envoy.ALL, ALL),
    Neighbour(envoy.program("envoy all-first-seen", envoy.everything), ALL_FIRST_SEEN),
    Neighbour(envoy.program("envoy all-es256-first-seen", lambda place: envoy.everything(place, "ES256")), ALL_ES256),
    Neighbour(CADDY),
    Neighbour(node.FASTIFY),
    Neighbour(node.EXPRESS_GATEWAY),
)
