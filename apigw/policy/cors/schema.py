"""The keys of CORS."""

from __future__ import annotations

from apigw.config.keys import Keys, Rule, duration, item, list_of, map_of, switch
from apigw.policy.cors.model import Cors, CorsOfRoute

CORS: Rule = {
    "origins": list_of("Origins as browsers send them, or `*` alone.", item("origin"), required=True, minlength=1),
    "credentials": switch("Whether browsers may send cookies and credentials. Not with `*`."),
    "max_age": duration("How long browsers may remember a preflight.", "0s", "24h"),
    "allow_headers": list_of(
        "Headers that a page may send besides those that every page may.",
        item("header"),
        nullable=True,
        default="whatever it asks for",
    ),
    "expose_headers": list_of(
        "Headers of an answer that a page may read besides the safelisted ones and those that the service exposes.",
        item("header"),
    ),
}

OF_ROUTE: Rule = {
    "cors": map_of(
        "Which web pages may call it. A preflight is answered before authentication.", Cors, CORS, nullable=True
    ),
}

KEYS = (Keys(("routes",), CorsOfRoute, OF_ROUTE),)
