# Compiled: see docs/decisions/compiled.md
"""Translates refusals of the wire to the gateway's errors."""

from __future__ import annotations

from apigw import errors
from apigw.errors import GatewayError
from apigw.wire.errors import Refused

_KINDS: dict[int, type[GatewayError]] = {
    405: errors.MethodNotAllowed,
    408: errors.ClientTimeout,
    413: errors.BodyTooLarge,
    414: errors.TargetTooLong,
    421: errors.Misdirected,
    431: errors.HeadersTooLarge,
    501: errors.NotImplementedMethod,
}


def refused(error: Refused) -> GatewayError:
    return _KINDS.get(error.status, errors.BadRequest)(error.reason)
