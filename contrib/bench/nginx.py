"""nginx: the origin behind every proxy, and the neighbour whose cost is the unit. One worker each.

Keep-alive has no last request on either side: the default of 1,000 requests a connection would measure reconnecting as
well. As many connections to the origin are kept as a run may open, for the same reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from bench import certificates
from bench.programs import HOST, Place, Program

ANSWER = '{"id": 42, "name": "Ada Lovelace", "email": "ada@example.com"}'

_WHOLE = """\
worker_processes 1;
daemon off;{user}
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{http}
}}
"""
_ORIGIN = """\
    server {{
        listen {host}:{port} backlog=4096;
        default_type application/json;
        location / {{ return 200 '{answer}'; }}
    }}"""
_PROXY = """\
    upstream origin {{
        server {host}:{origin};
        keepalive 8192;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
{http}
    server {{
        listen {host}:{port}{tls} backlog=4096;
{server}
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_max_temp_file_size 0;
        }}
    }}"""
_ZONE_AND_FORMAT = """\
    limit_req_zone $binary_remote_addr zone=address:1m rate=1000000r/s;
    log_format line escape=json
        '{"time": "$time_iso8601", "request_id": "$request_id", "client": "$remote_addr", '
        '"method": "$request_method", "path": "$request_uri", "status": $status, "bytes_in": "$content_length", '
        '"bytes_out": $body_bytes_sent, "duration": $request_time, "upstream": "$upstream_addr", '
        '"upstream_duration": "$upstream_response_time", "protocol": "$server_protocol"}';"""
# In the server: where everything is told `access_log off`, a second access_log is off too.
_LIMIT_AND_LOG = """\
        limit_req zone=address burst=100000 nodelay;
        access_log access.log line buffer=64k flush=1s;"""
# Without it 1.22 speaks 1.2 only, and a session that a client resumes needs no key exchange there.
_CERTIFICATE = """\
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate cert.pem;
        ssl_certificate_key key.pem;"""


def _user() -> str:
    """Started by root its worker would be somebody who may not read what is beside the configuration."""
    return "" if os.geteuid() else "\nuser root;"


def program(
    name: str, http: Callable[[Place], str], besides: Callable[[], Mapping[str, str]] = dict[str, str]
) -> Program:
    return Program(
        name=name,
        executable="nginx",
        argv=lambda place: ["nginx", "-p", str(place.directory), "-c", "nginx.conf", "-e", "error.log"],
        files=lambda place: {"nginx.conf": _WHOLE.format(http=http(place), user=_user()), **besides()},
        version=("nginx", "-v"),
    )


def proxy(name: str, http: str = "", server: str = "", tls: str = "") -> Program:
    def text(place: Place) -> str:
        return _PROXY.format(host=HOST, port=place.port, origin=place.origins[0], http=http, server=server, tls=tls)

    return program(name, text, certificates.files if tls else dict)


ORIGIN = program("origin", lambda place: _ORIGIN.format(host=HOST, port=place.port, answer=ANSWER))
BARE = proxy("nginx")
LIMIT_AND_LOG = proxy("nginx limit-and-log", _ZONE_AND_FORMAT, _LIMIT_AND_LOG)
TLS = proxy("nginx", server=_CERTIFICATE, tls=" ssl http2")
