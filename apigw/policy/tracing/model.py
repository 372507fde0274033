"""The configuration of tracing."""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import Config


@frozen
class Tracing:
    """``otlp`` is the collector's URL. ``sample`` is the share of the traces that begin here that are recorded.

    ``trust`` says from whom a trace is continued: ``everyone`` or ``trusted_proxies``.
    """

    otlp: str
    sample: float = 0.01
    propagate: tuple[str, ...] = ("w3c",)
    trust: str = "everyone"
    service_name: str = "apigw"
    headers_file: str | None = None


@frozen
class TracingSection:
    tracing: Tracing | None = None


def tracing_of(config: Config) -> Tracing | None:
    return config.of(TracingSection).tracing
