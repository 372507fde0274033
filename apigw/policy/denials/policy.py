"""The policy of denials: an operator denies callers on gateways that run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.web.resource import IResource

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.policy import Context, Part, Policy, Prepared
from apigw.policy.auth.model import auth_of, demanded
from apigw.policy.denials.denials import Denials
from apigw.policy.denials.in_redis import InRedis
from apigw.policy.denials.lasting import Lasting
from apigw.policy.denials.resource import DenialsPage
from apigw.policy.denials.series import DenialSeries
from apigw.policy.denials.store import InPage, InProcess
from apigw.policy.denials.watch import OfAddress, OfCaller, Watch


class DenialsPolicy(Policy):
    """It has no keys: it is there for every route, and costs next to nothing while nobody is denied."""

    name = "denials"

    def __init__(self, context: Context) -> None:
        series = DenialSeries(context.metrics.registry, context.redis is not None)
        self.watch = Watch(series.denied)
        self.lasting = Lasting(self.watch, lambda: self.key_fields)
        self.key_fields: Sequence[bytes] = ()
        self.denials = Denials(
            context.reactor,
            context.now,
            context.machine,
            InProcess() if context.page is None else InPage(context.page),
            None if context.redis is None else InRedis(context.redis),
            self.watch,
            self.lasting,
            series,
        )
        self._page = DenialsPage(self.denials, context.may_write, context.now)

    def start(self) -> None:
        self.denials.start()

    def stop(self) -> None:
        self.denials.stop()

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> PreparedDenials:
        return PreparedDenials(self, self._page, config)


class PreparedDenials(Prepared):
    def __init__(self, policy: DenialsPolicy, page: DenialsPage, config: Config) -> None:
        self._policy = policy
        self._page = page
        self._config = config
        auth = auth_of(config)
        headers = () if auth is None else {each.header.lower().encode("ascii") for each in auth.api_keys}
        self._key_fields = tuple(sorted(headers))
        lasting = (policy.lasting,)
        of_address, of_caller = OfAddress(policy.watch), OfCaller(policy.watch, self._key_fields)
        self._open = Part(stages={"access": of_address}, on_lasting=lasting)
        self._authenticated = Part(stages={"access": of_address, "after_auth": of_caller}, on_lasting=lasting)

    def part(self, route: RouteConfig) -> Part:
        return self._open if demanded(self._config, route) == "none" else self._authenticated

    def unmatched(self) -> Part:
        return self._open

    def admit(self, address: bytes) -> None:
        self._policy.watch.check_address(address)

    def adopt(self, previous: Prepared | None) -> None:
        self._policy.key_fields = self._key_fields

    def admin_resources(self) -> Mapping[str, IResource]:
        return {"/denials": self._page}
