"""The programs of ``edge``: nginx, HAProxy and Envoy with TLS, HTTP/2 and gRPC, and what stands behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve

from bench import certificates, envoy, nginx
from bench.machine import MIB
from bench.neighbours import HAPROXY
from bench.programs import HOST, Document, Place, Program
from bench.scenarios import document, with_tls

CALL = "/bench.Echo/Unary"
MESSAGE = b"\0\0\0\0\x20" + b"m" * 32
"""A gRPC message of 32 bytes, not compressed."""
_HTTP2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def with_certificates(program: Program) -> Program:
    return evolve(program, files=lambda place: {**program.files(place), **certificates.files()})


def _haproxy(place: Place) -> dict[str, str]:
    pair = certificates.files()
    plain = HAPROXY.files(place)["haproxy.cfg"]
    bind = f"bind {HOST}:{place.port}"
    secure = plain.replace(bind, f"{bind} ssl crt both.pem alpn h2,http/1.1")
    return {"haproxy.cfg": secure, "both.pem": pair["cert.pem"] + pair["key.pem"]}


def _secure(made: Callable[[Place], Any]) -> Callable[[Place], Any]:
    """Envoy's configuration, with TLS to clients."""

    def config(place: Place) -> Any:
        whole = made(place)
        pair = {"certificate_chain": {"filename": "cert.pem"}, "private_key": {"filename": "key.pem"}}
        context = {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [pair]},
        }
        chain = whole["static_resources"]["listeners"][0]["filter_chains"][0]
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
        return whole

    return config


def _to_http2(place: Place) -> Any:
    """Envoy's configuration, with HTTP/2 to the last of the origins."""
    whole = envoy.bare(evolve(place, origins=place.origins[-1:]))
    options = {"@type": _HTTP2, "explicit_http_config": {"http2_protocol_options": {}}}
    whole["static_resources"]["clusters"][0]["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
    }
    return whole


HAPROXY_TLS = evolve(HAPROXY, files=_haproxy)
ENVOY_TLS = with_certificates(envoy.program("envoy", _secure(envoy.bare)))
ENVOY_H2 = with_certificates(envoy.program("envoy h2-h2", _secure(_to_http2)))
ENVOY_GRPC = envoy.program("envoy", _to_http2)
NGINX_BODIES = nginx.proxy("nginx", server="        client_max_body_size 0;\n        proxy_request_buffering off;")

_H2C = """\
    server {{
        listen {host}:{port} http2 backlog=4096;
        default_type application/json;
        location / {{ return 200 '{answer}'; }}
    }}"""
# Through a proxy of its own, which reads the request's message before it answers. An answer that is earlier is followed
# by a RST_STREAM, and nginx's grpc_pass, which may have used the connection again by then, fails the next call for it.
_UNARY = """\
    server {{
        listen {host}:{port} http2 backlog=4096;
        add_trailer grpc-status 0;
        location / {{
            proxy_pass http://unix:{directory}/message.sock;
            proxy_method GET;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }}
    }}
    server {{
        listen unix:{directory}/message.sock backlog=4096;
        default_type application/grpc;
        location ~ ^/ {{ alias {directory}/message; }}
    }}"""
_MIB = """\
    server {{
        listen {host}:{port} backlog=4096;
        default_type application/octet-stream;
        location ~ ^/ {{ alias {directory}/mib; }}
    }}"""
_GRPC = """\
    upstream origin {{
        server {host}:{origin};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {host}:{port} http2 backlog=4096;
        location / {{ grpc_pass grpc://origin; }}
    }}"""


def _server(name: str, text: str, **files: str) -> Program:
    def http(place: Place) -> str:
        origin = place.origins[-1] if place.origins else 0
        words = {"host": HOST, "port": place.port, "origin": origin, "directory": place.directory}
        return text.format(answer=nginx.ANSWER, **words)

    return nginx.program(name, http, lambda: files)


H2C_ORIGIN = _server("origin h2c", _H2C)
UNARY_ORIGIN = _server("origin grpc", _UNARY, message=MESSAGE.decode())
MIB_ORIGIN = _server("origin bodies", _MIB, mib="b" * MIB)
NGINX_GRPC = _server("nginx grpc_pass", _GRPC)


def with_http2_behind(place: Place) -> Document:
    """The gateway with TLS, before the last of the origins, which speaks HTTP/2."""
    whole = dict(with_tls(evolve(place, origins=place.origins[-1:])))
    whole["services"]["origin"]["protocol"] = "h2c"
    return whole


def with_grpc(place: Place) -> Document:
    behind = evolve(place, origins=place.origins[-1:])
    whole = document(behind, [{"path": "/bench.Echo/*", "service": "origin"}], max_body_size=None)
    whole["services"]["origin"]["protocol"] = "grpc"
    return whole


def with_bodies(place: Place) -> Document:
    return document(place, max_body_size=None)
