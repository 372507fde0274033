"""The keys of redirects."""

from __future__ import annotations

from apigw.config.keys import Keys, Rule, map_of, number_of, switch_or_map, text, whole
from apigw.policy.redirect.model import STATUSES, HttpsRedirect, Redirect, RedirectOfGateway, RedirectOfRoute

REDIRECT: Rule = {
    "to": text(
        "A URL or a path, with [braces](rewriting.md#braces). The client's query stays, unless a `?` is written.",
        "redirect",
        required=True,
    ),
    "status": number_of("301 and 308 are for ever, 307 and 308 keep the method.", *STATUSES),
}

HTTPS_REDIRECT: Rule = {"port": whole("The port of the new URL.", 1, 65535)}

OF_ROUTE: Rule = {
    "redirect": map_of(
        "[Where requests are redirected](rewriting.md#redirect), in place of a `service`.",
        Redirect,
        REDIRECT,
        answers=True,
        like='{to: "https://…"}',
        meant={**dict.fromkeys(("location", "target", "url"), "'to'"), "code": "'status'"},
    ),
}

OF_GATEWAY: Rule = {
    "https_redirect": switch_or_map(
        "Whether requests on listeners without `tls` are [redirected](rewriting.md#gatewayhttps_redirect) to `https`.",
        HttpsRedirect,
        HTTPS_REDIRECT,
    ),
}

KEYS = (Keys(("routes",), RedirectOfRoute, OF_ROUTE), Keys(("gateway",), RedirectOfGateway, OF_GATEWAY))
