"""The policy of denials: an operator denies callers on gateways that run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from twisted.web.resource import IResource

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.policy import Context, Part, Policy, Prepared
from apigw.policy.auth.model import auth_of
from apigw.policy.denials.denials import Denials
from apigw.policy.denials.in_redis import InRedis
from apigw.policy.denials.lasting import Lasting
from apigw.policy.denials.resource import DenialsPage
from apigw.policy.denials.series import DenialSeries
from apigw.policy.denials.store import InPage, InProcess
from apigw.policy.denials.watch import Guard, Watch


class DenialsPolicy(Policy):
    """It has no keys: it is there for every route, and costs nothing while nobody is denied."""

    name = "denials"

    def __init__(self, context: Context) -> None:
        series = DenialSeries(context.metrics.registry, context.redis is not None)
        self.watch = Watch(series.denied)
        self.guard = Guard(self.watch)
        self.lasting = Lasting(self.watch, lambda: self.guard.key_fields, partial(context.reactor.callLater, 0))
        self._set_guard = context.set_guard
        self.denials = Denials(
            context.reactor,
            context.now,
            context.machine,
            InProcess() if context.page is None else InPage(context.page),
            None if context.redis is None else InRedis(context.redis),
            self.watch,
            self.lasting,
            series,
            self._changed,
        )
        self._page = DenialsPage(self.denials, context.may_write, context.now, context.audit)

    def start(self) -> None:
        self.denials.start()

    def stop(self) -> None:
        self.denials.stop()

    def _changed(self, some: bool) -> None:
        self.guard.forget()
        self._set_guard(self.guard if some else None)

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> PreparedDenials:
        return PreparedDenials(self, self._page, config)


class PreparedDenials(Prepared):
    def __init__(self, policy: DenialsPolicy, page: DenialsPage, config: Config) -> None:
        self._policy = policy
        self._page = page
        auth = auth_of(config)
        headers = () if auth is None else {each.header.lower().encode("ascii") for each in auth.api_keys}
        self._key_fields = tuple(sorted(headers))
        self._part = Part(on_lasting=(policy.lasting,))
        self.denies = policy.watch.denies
        """For policies that give callers something, as the token endpoint does."""

    def part(self, route: RouteConfig) -> Part:
        return self._part

    def admit(self, address: bytes, is_certain: bool) -> None:
        self._policy.watch.check_address(address)

    def adopt(self, previous: Prepared | None) -> None:
        self._policy.guard.key_fields = self._key_fields

    def admin_resources(self) -> Mapping[str, IResource]:
        return {"/denials": self._page}
