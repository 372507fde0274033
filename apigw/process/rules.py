"""What every room says of what may stand in a configuration, for whoever loads one.

The policies come in the order in which a request meets them.
"""

from __future__ import annotations

from apigw.config.rules import Rules
from apigw.policy.auth import rules as auth
from apigw.policy.cors import rules as cors
from apigw.policy.limits import rules as limits
from apigw.policy.oauth import rules as oauth
from apigw.process import admin_token
from apigw.routing import rules as routing

RULES = (
    Rules(contents={"admin token": admin_token.parse})
    | routing.RULES
    | cors.RULES
    | oauth.RULES
    | auth.RULES
    | limits.RULES
)
