"""The policy that records traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from apigw.config.errors import ConfigError, problem_in
from apigw.config.files import read
from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.policy import Context, Part, Policy, Prepared
from apigw.ops.tracing.propagation import Propagation
from apigw.ops.tracing.sampling import Sampler
from apigw.ops.tracing.spans import ClientSpans, Hosts, ServerSpans
from apigw.policy.tracing.exporter import Exporter
from apigw.policy.tracing.model import Tracing, tracing_of
from apigw.policy.tracing.rules import RULES, collector_headers
from apigw.policy.tracing.series import TracingSeries
from apigw.policy.tracing.stage import BeginTrace, EndTrace, Epoch

PATH = "/v1/traces"
"""Where a collector takes spans (OTLP 1.10, "OTLP/HTTP Request")."""


class TracingPolicy(Policy):
    name = "tracing"
    rules = RULES

    def __init__(self, context: Context) -> None:
        self.exporter = Exporter(context.agent, context.reactor, TracingSeries(context.metrics.registry).count)
        self.seconds, self.now = context.seconds, context.now

    def stop(self) -> Deferred[Any]:
        return self.exporter.stop()

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> Prepared:
        tracing = tracing_of(config)
        if tracing is None:
            return NotTracing(self.exporter)
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if tracing.headers_file is not None:
            try:
                headers = tuple(collector_headers(read(tracing.headers_file)))
            except ValueError as error:
                sentence = f"{tracing.headers_file!r} {error}"
                raise ConfigError([problem_in(config, ("tracing", "headers_file"), sentence)]) from None
        return PreparedTracing(self, tracing, headers)


class NotTracing(Prepared):
    def __init__(self, exporter: Exporter) -> None:
        self.exporter = exporter

    def adopt(self, previous: Prepared | None) -> None:
        self.exporter.end()


class PreparedTracing(Prepared):
    """``headers`` are for the collector."""

    def __init__(self, policy: TracingPolicy, tracing: Tracing, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self.exporter = policy.exporter
        self._tracing = tracing
        self._headers = headers
        self._epoch = Epoch(policy.seconds, policy.now)
        self._propagation = Propagation(tracing.propagate)
        self._sampler = Sampler(tracing.sample)
        self._hosts = Hosts()
        self._tries = ClientSpans()

    def part(self, route: RouteConfig) -> Part:
        return self._part(route.path)

    def unmatched(self) -> Part:
        return self._part("")

    def _part(self, pattern: str) -> Part:
        end = EndTrace(ServerSpans(pattern, self._hosts), self._tries, self.exporter.batches, self._epoch)
        begin = BeginTrace(self._propagation, self._sampler, self._tracing.trust == "trusted_proxies", end)
        return Part(stages={"access": begin}, stripped=self._propagation.names)

    def adopt(self, previous: Prepared | None) -> None:
        url = self._tracing.otlp.rstrip("/")
        url = url if url.endswith(PATH) else url + PATH
        self.exporter.use(url, self._headers, self._tracing.service_name)
