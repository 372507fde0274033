"""The keys of CORS."""

from __future__ import annotations

from apigw.config.keys import Keys, Rule, duration, item, list_of, map_of, switch
from apigw.policy.cors.model import Cors, CorsOfRoute

CORS: Rule = {
    "origins": list_of("Allowed origins, as browsers send them; or `*`.", item("origin"), required=True, minlength=1),
    "credentials": switch("Whether browsers may send credentials, such as cookies. Not with `*`."),
    "max_age": duration("How long browsers may cache a preflight.", "0s", "24h"),
    "allow_headers": list_of(
        "Request headers that a page may send, besides the safelisted ones.",
        item("header"),
        nullable=True,
        default="all that it asks for",
    ),
    "expose_headers": list_of(
        "Headers of an answer that a page may read, besides the safelisted ones and those that the service exposes.",
        item("header"),
    ),
}

OF_ROUTE: Rule = {
    "cors": map_of(
        "Web pages of which origins may call it. Preflights are answered before authentication.",
        Cors,
        CORS,
        nullable=True,
        like='{origins: ["https://…"]}',
        meant={
            **dict.fromkeys(("allow_credentials", "allowed_credentials"), "'credentials'"),
            **dict.fromkeys(("allow_origin", "allow_origins", "allowed_origins", "origin"), "'origins'"),
        },
        instead=dict.fromkeys(("allow_methods", "allowed_methods", "methods"), "a page may use the route's methods"),
    ),
}

KEYS = (Keys(("routes",), CorsOfRoute, OF_ROUTE),)
