"""The rules of all rooms for the configuration, combined for its loader."""

from __future__ import annotations

from functools import reduce
from operator import or_

from apigw.config.rules import Rules
from apigw.policy.all import POLICIES
from apigw.process import admin_token
from apigw.routing import rules as routing

_CORE = Rules(contents={"admin token": admin_token.parse}, private=frozenset({"admin token"})) | routing.RULES

RULES: Rules = reduce(or_, (policy.rules for policy in POLICIES), _CORE)
