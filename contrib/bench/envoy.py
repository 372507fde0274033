"""Envoy as a neighbour: bare, and with the policies of the gateway's scenario ``all``. Configurations are JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench import tokens
from bench.programs import HOST, Document, Place, Program

_API = "type.googleapis.com/envoy.extensions"
_FAR_ABOVE = 1_000_000_000
_ACCESS_LINE = {
    "time": "%START_TIME%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "route": "%ROUTE_NAME%",
    "status": "%RESPONSE_CODE%",
    "code": "%RESPONSE_FLAGS%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "upstream": "%UPSTREAM_HOST%",
    "upstream_ms": "%RESPONSE_DURATION%",
    "principal": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:claims:sub)%",
    "protocol": "%PROTOCOL%",
}


def _filter(name: str, kind: str, **settings: Any) -> dict[str, Any]:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{_API}.filters.http.{kind}", **settings}}


ROUTER = _filter("router", "router.v3.Router")


def _socket(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


def _document(place: Place, routes: Sequence[Document], manager: Document, cluster: Document) -> dict[str, Any]:
    """One listener, one connection manager, one cluster; what the arguments say goes into the last two."""
    connection_manager = {
        "@type": f"{_API}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "public",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": list(routes)}]},
        **manager,
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": connection_manager}
    listener = {"name": "public", "address": _socket(place.port), "filter_chains": [{"filters": [network]}]}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _socket(place.origins[0])}}]}]
    assignment = {"cluster_name": "origin", "endpoints": endpoints}
    origin = {"name": "origin", "type": "STATIC", "load_assignment": assignment, **cluster}
    return {"static_resources": {"listeners": [listener], "clusters": [origin]}}


def bare(place: Place) -> dict[str, Any]:
    """One prefix, no request id, no log, no admin port."""
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}]
    return _document(place, routes, {"generate_request_id": False, "http_filters": [ROUTER]}, {})


def _routes(count: int) -> list[Document]:
    """As the gateway's ``many_routes``: three shapes, and the one that is asked for in the middle."""
    shapes = ("/api/v1/things{}", "/api/v1/things{}/{{id}}", "/api/v1/things{}/{{id}}/parts/{{part}}")
    templates = [shapes[number % 3].format(number // 3) for number in range(count - 1)]
    templates.insert(count // 2, "/api/v1/users/{id}")
    return [{"name": template, "match": _template(template), "route": {"cluster": "origin"}} for template in templates]


def _template(template: str) -> dict[str, Any]:
    if "{" not in template:
        return {"path": template}
    matcher = {"@type": f"{_API}.path.match.uri_template.v3.UriTemplateMatchConfig", "path_template": template}
    name = "envoy.path.match.uri_template.uri_template_matcher"
    return {"path_match_policy": {"name": name, "typed_config": matcher}}


def _claim(name: str) -> list[dict[str, str]]:
    """Where ``jwt_authn`` leaves a claim in the metadata."""
    return [{"key": "claims"}, {"key": name}]


def _authenticate(algorithm: str) -> dict[str, Any]:
    provider = {
        "issuer": tokens.ISSUER,
        "local_jwks": {"inline_string": tokens.key_set(algorithm)},
        "forward": True,
        "payload_in_metadata": "claims",
        "jwt_cache_config": {"jwt_cache_size": 16_384},
    }
    rules = [{"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}]
    return _filter("jwt_authn", "jwt_authn.v3.JwtAuthentication", providers={"bench": provider}, rules=rules)


def _demand_role() -> dict[str, Any]:
    has_role = {
        "filter": "envoy.filters.http.jwt_authn",
        "path": _claim("roles"),
        "value": {"list_match": {"one_of": {"string_match": {"exact": "user"}}}},
    }
    policy = {"permissions": [{"any": True}], "principals": [{"sourced_metadata": {"metadata_matcher": has_role}}]}
    return _filter("rbac", "rbac.v3.RBAC", rules={"action": "ALLOW", "policies": {"user": policy}})


def _limit_users() -> dict[str, Any]:
    """One bucket for each ``sub``, made when it is first seen."""
    subject = {"key": "envoy.filters.http.jwt_authn", "path": _claim("sub")}
    bucket = {"max_tokens": _FAR_ABOVE, "tokens_per_fill": _FAR_ABOVE, "fill_interval": "3600s"}
    return _filter(
        "local_ratelimit",
        "local_ratelimit.v3.LocalRateLimit",
        stat_prefix="limit",
        filter_enabled={"default_value": {"numerator": 100}},
        filter_enforced={"default_value": {"numerator": 100}},
        rate_limits=[{"actions": [{"metadata": {"descriptor_key": "user", "metadata_key": subject}}]}],
        descriptors=[{"entries": [{"key": "user"}], "token_bucket": bucket}],
        token_bucket=bucket,
        always_consume_default_token_bucket=False,
        max_dynamic_descriptors=1024,
    )


def everything(place: Place, algorithm: str = "RS256") -> dict[str, Any]:
    """100 routes, a cached token, a role, a limit by user, outlier detection, request id, JSON access log."""
    log = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_API}.access_loggers.file.v3.FileAccessLog",
            "path": str(place.directory / "access.log"),
            "log_format": {"json_format": _ACCESS_LINE},
        },
    }
    manager = {
        "generate_request_id": True,
        "access_log": [log],
        "http_filters": [_authenticate(algorithm), _demand_role(), _limit_users(), ROUTER],
    }
    return {
        **_document(place, _routes(100), manager, {"outlier_detection": {"consecutive_5xx": 5}}),
        "admin": {"address": {"pipe": {"path": str(place.directory / "admin.sock")}}},
    }


def program(name: str, document: Any) -> Program:
    """``document`` makes the configuration of a place. One worker, and nothing shared with another Envoy."""
    return Program(
        name=name,
        executable="envoy",
        argv=lambda _: ["envoy", "-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "-l", "warning"],
        files=lambda place: {"envoy.json": json.dumps(document(place), indent=1)},
        version=("envoy", "--version"),
    )


BARE = program("envoy", bare)
ALL = program("envoy all", everything)
