"""Warnings of retries that can never be made."""

from __future__ import annotations

from typing import Any

from apigw.config import units
from apigw.config.merge import Document
from apigw.config.model import Gateway, Path


def retries(document: Document) -> None:
    """Warns of a ``per_try_timeout`` that is not less than a timeout, and of gRPC where POST is not repeated."""
    lasting: dict[str, float] = {}
    for path, service in document.entries("services"):
        retry = document.get(*path, "retry") if isinstance(service, dict) else None
        if retry is None:
            continue
        _grpc(document, path, retry)
        if retry.get("per_try_timeout") is not None:
            lasting[str(path[-1])] = one_try = units.seconds(retry["per_try_timeout"])
            whole = document.get(*path, "timeout") or document.get("gateway", "request_timeout")
            whole = Gateway().request_timeout if whole is None else units.seconds(whole)
            if one_try >= whole:
                at = (*path, "retry", "per_try_timeout")
                document.warn(at, f"has no effect: it is not less than the timeout, {units.duration_text(whole)}")
    for path, route in document.entries("routes"):
        whole = document.get(*path, "timeout") if isinstance(route, dict) else None
        at_most = lasting.get(str(route.get("service"))) if whole is not None else None
        if at_most is not None and units.seconds(whole) <= at_most:
            document.warn(
                (*path, "timeout"),
                f"leaves no time for a retry: the per_try_timeout of its service is {units.duration_text(at_most)}",
            )


def _grpc(document: Document, path: Path, retry: dict[str, Any]) -> None:
    written = retry.get("methods", "idempotent")
    methods = {written} if isinstance(written, str) else set(written)
    if document.get(*path, "protocol") == "grpc" and not methods & {"POST", "all"}:
        document.warn((*path, "retry"), "repeats no call of gRPC that was sent, as they are POST: write methods: all")
