"""The keys of splits."""

from __future__ import annotations

from apigw.config.keys import Keys, Rule, named, optional_file, secret, text, whole
from apigw.policy.split.model import CookieSecretOfGateway, SplitBy, SplitOfRoute

OF_ROUTE: Rule = {
    "split": named(
        "In place of `service`: [several services](splits.md), each with its weight. They get the requests in these "
        "shares.",
        whole("", 0, 1_000_000, like="95, of 100"),
        nullable=True,
        answers=True,
        like="{old: 95, new: 5}",
    ),
    "split_by": {
        "type": ["string", "dict"],
        "form": "split by",
        "nullable": True,
        "schema": {
            "header": text("The header of the request whose value it is.", "token", nullable=True),
            "cookie": text(
                "The cookie that the gateway sets for it; needs `gateway.cookie_secret_file`.", "token", nullable=True
            ),
        },
        "meta": {
            "doc": "What requests for the same service have in common: the authenticated caller (`principal`), the "
            "value of a header, or the client, by a signed cookie. Else each request is decided at random.",
            "model": SplitBy,
        },
    },
}

OF_GATEWAY: Rule = {
    "cookie_secret": secret(
        "The secret that signs cookies of `split_by`, at least 32 bytes. Better: `cookie_secret_file`."
    ),
    "cookie_secret_file": optional_file(
        "Holds that secret, or several, a line each: the first signs, all are accepted.",
        "cookie secret",
        into="cookie_secret",
    ),
}

KEYS = (Keys(("routes",), SplitOfRoute, OF_ROUTE), Keys(("gateway",), CookieSecretOfGateway, OF_GATEWAY))
