"""The policy of policies that users wrote."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, gatherResults

from apigw.config.errors import ConfigError, Problem, problem_in
from apigw.config.model import Config, Redis
from apigw.config.model import Route as RouteConfig
from apigw.contract.exchange import Stage
from apigw.contract.fields import Names
from apigw.contract.policy import NOTHING, POSITIONS, Part, Policy, Prepared
from apigw.contract.policy import Context as GatewayContext
from apigw.contract.view_shared import FORWARD, REQUEST, Shared
from apigw.policy.plugins.body import OF_ANSWER, OF_REQUEST, BodyCall
from apigw.policy.plugins.choose import ChooseCall
from apigw.policy.plugins.context import Context, PluginMetrics
from apigw.policy.plugins.guard import Counts
from apigw.policy.plugins.instance import Instance
from apigw.policy.plugins.loading import Place, Unloadable, is_loaded, load, text_of
from apigw.policy.plugins.log import PluginLog
from apigw.policy.plugins.model import Plugin, plugins_of, used_by, used_by_services
from apigw.policy.plugins.rules import RULES
from apigw.policy.plugins.series import Kept, PluginSeries
from apigw.policy.plugins.stage import AnswerHook, Call, Ending, Watch
from apigw.wire.calls import Calls
from apigw.wire.headers import FOLDED


class PluginsPolicy(Policy):
    name = "plugins"
    rules = RULES

    def __init__(self, context: GatewayContext) -> None:
        self._reactor = context.reactor
        self._now = context.now
        self._calls = Calls(context.agent, context.reactor)
        self._bodies = context.bodies
        self._registry = context.metrics.registry
        self._series = PluginSeries()
        self._registry.register(self._series)
        self._kept: dict[str, Kept] = {}
        self._runs = False
        self._used: PreparedPlugins | None = None
        self._code = {plugin.code.root: plugin.code for plugin in plugins_of(context.config) if plugin.code is not None}
        """What the process has loaded, by its root."""

    def start(self) -> None:
        self._runs = True

    def stop(self) -> Deferred[Any]:
        used = () if self._used is None else self._used.instances.values()
        return gatherResults([each.stop() for each in used])

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> Generator[None, None, Prepared]:
        before: Mapping[str, Instance] = {} if previous is None else previous.instances
        instances: dict[str, Instance] = {}
        problems: list[Problem] = []
        for plugin in plugins_of(config):
            held = before.get(plugin.name)
            try:
                if held is not None and held.plugin == plugin:
                    instances[plugin.name] = held
                else:
                    instances[plugin.name] = self._made(plugin, config.redis, previous is not None)
            except Unloadable as error:
                problems.append(problem_in(config, ("plugins", plugin.name, "policy"), f"{plugin.policy!r} {error}"))
            except ValueError as error:
                problems.append(problem_in(config, ("plugins", plugin.name, "with"), text_of(error)))
            except BaseException as error:
                why = f"{plugin.policy!r} failed in prepare: {type(error).__name__}: {text_of(error)}"
                problems.append(problem_in(config, ("plugins", plugin.name, "policy"), why))
            yield
        problems += _owned_twice(config, instances)
        problems += _shown_twice(config, instances, self._series)
        if problems:
            raise ConfigError(problems)
        return PreparedPlugins(self, config, instances)

    def _made(self, plugin: Plugin, redis: Redis | None, runs: bool) -> Instance:
        place = plugin.place
        assert place is not None
        if runs:
            self._check_loaded(plugin, place)
        found = load(place)
        kept = self._kept.get(plugin.name)
        if kept is None:
            log = PluginLog(plugin.name, self._reactor.seconds)
            kept = self._kept[plugin.name] = Kept(Counts(), log, PluginMetrics(plugin.name, self._registry, log))
        context = Context(
            plugin.name,
            plugin.directory,
            plugin.timeout,
            self._reactor,
            self._now,
            kept.log,
            kept.metrics,
            self._calls,
            redis,
        )
        return Instance(plugin, found, context, kept, self._reactor)

    def _check_loaded(self, plugin: Plugin, place: Place) -> None:
        """Raises ``Unloadable`` for code that this process does not have: it is never loaded a second time."""
        code = plugin.code
        assert code is not None
        known = self._code.get(code.root)
        if not is_loaded(place) or known is None:
            raise Unloadable("is not loaded yet: restart the gateway, or `apigw upgrade`")
        if known != code:
            raise Unloadable("has changed on disk since it was loaded: restart the gateway, or `apigw upgrade`")

    def use(self, prepared: PreparedPlugins, redis: Redis | None) -> None:
        """``prepared`` is in use from now on."""
        old = {} if self._used is None else self._used.instances
        self._used = prepared
        for name, instance in old.items():
            if prepared.instances.get(name) is not instance:
                instance.retire()
        for instance in prepared.instances.values():
            instance.kept.guard = instance.guard
            instance.start()
            if redis is not None and instance.context.link is not None:
                instance.context.link.timeout = redis.timeout

    def keep_series(self, prepared: PreparedPlugins) -> None:
        for name in self._kept.keys() - prepared.instances.keys():
            self._kept.pop(name).metrics.hide()
        for kept in self._kept.values():
            kept.metrics.show()
        self._series.shown = dict(self._kept)

    def wired(self, instance: Instance, owned: frozenset[bytes]) -> Wired:
        return Wired(instance, owned, self._bodies)


class Wired:
    """The stages and hooks of one plugin. ``owned`` are the names that only plugins may set, of all plugins, folded."""

    def __init__(self, instance: Instance, owned: frozenset[bytes], bodies: Any) -> None:
        guard, log = instance.guard, instance.kept.log
        names = Names(owned, frozenset(name.translate(FOLDED) for name in instance.owned))
        late = instance.position == POSITIONS[-1]
        keeps = instance.is_called_again
        shared = Shared(instance.plugin.name, names, instance.context, log.for_exchange, bodies, late, keeps)
        self.position = instance.position
        self.watch = self.on_request = self.on_forward = self.on_answer = None
        on_request, on_forward = instance.method("on_request"), instance.method("on_forward")
        on_answer, on_end = instance.method("on_answer"), instance.method("on_end")
        if on_end is not None or instance.method("stop") is not None:
            self.watch = Watch(Ending(guard, shared, on_end, instance.users))
        if on_request is not None:
            mine = None if late else instance.owned or None  # behind the last position nobody reads them
            self.on_request = Call(guard, shared, on_request, "on_request", REQUEST, mine)
        if on_forward is not None:
            self.on_forward = Call(guard, shared, on_forward, "on_forward", FORWARD)
        if on_answer is not None:
            self.on_answer = AnswerHook(guard, shared, on_answer)
        of_service, of_target = instance.method("choose_service"), instance.method("choose_target")
        self.chooser = None
        if of_service is not None or of_target is not None:
            self.chooser = ChooseCall(guard, shared, of_service, of_target)
        self.on_request_body = self.on_answer_body = None
        on_request_body, on_answer_body = instance.method("on_request_body"), instance.method("on_answer_body")
        if on_request_body is not None:
            self.on_request_body = BodyCall(guard, shared, on_request_body, OF_REQUEST, instance.changes_body)
        if on_answer_body is not None:
            self.on_answer_body = BodyCall(guard, shared, on_answer_body, OF_ANSWER, instance.changes_body)


class PreparedPlugins(Prepared):
    """``instances`` are the plugins of the configuration, by their names."""

    def __init__(self, policy: PluginsPolicy, config: Config, instances: Mapping[str, Instance]) -> None:
        self.instances = instances
        self._policy = policy
        self._config = config
        self._services = used_by_services(config)
        self._stripped = frozenset(name for each in instances.values() for name in each.owned)
        folded = frozenset(name.translate(FOLDED) for name in self._stripped)
        self._wired = {name: policy.wired(each, folded) for name, each in instances.items()}
        self._otherwise = Part(stripped=self._stripped) if self._stripped else NOTHING

    def part(self, route: RouteConfig) -> Part:
        use = used_by(self._config, self._services, route)
        if not use:
            return self._otherwise
        wired = [self._wired[name] for name in use]
        stages: dict[str, tuple[Stage, ...]] = {}

        def add(position: str, stage: Stage | None) -> None:
            if stage is not None:
                stages[position] = (*stages.get(position, ()), stage)

        for each in wired:
            add(POSITIONS[0], each.watch)
        for each in wired:
            add(each.position, each.on_request)
        if route.service is not None:
            for each in wired:
                add(POSITIONS[-1], each.on_forward)
        return Part(
            stages=stages,
            hooks=tuple(each.on_answer for each in wired if each.on_answer is not None),
            on_request_body=tuple(each.on_request_body for each in wired if each.on_request_body is not None),
            on_answer_body=tuple(each.on_answer_body for each in wired if each.on_answer_body is not None),
            choosers=tuple(each.chooser for each in wired if each.chooser is not None),
            stripped=self._stripped,
        )

    def adopt(self, previous: Prepared | None) -> None:
        self._policy.use(self, self._config.redis)

    def keep_series(self) -> None:
        self._policy.keep_series(self)


def _owned_twice(config: Config, instances: Mapping[str, Instance]) -> list[Problem]:
    """Headers that two plugins would have for themselves."""
    owners: dict[bytes, str] = {}
    problems = []
    for name, instance in instances.items():
        for key in sorted(instance.owned):
            other = owners.setdefault(key.translate(FOLDED), name)
            if other != name:
                sentence = f"has {key.decode()} among its own_headers, as the plugin {other} has"
                problems.append(problem_in(config, ("plugins", name), sentence))
    return problems


def _shown_twice(config: Config, instances: Mapping[str, Instance], own: PluginSeries) -> list[Problem]:
    """Metrics that another plugin has, or the gateway: ``hits`` of ``auth_cache`` is ``cache_hits`` of ``auth``."""
    registry = CollectorRegistry()
    registry.register(own)
    problems = []
    for name, instance in instances.items():
        for shown, family in instance.kept.metrics.families():
            try:
                registry.register(family)
            except ValueError:
                problems.append(problem_in(config, ("plugins", name), f"has the metric {shown}, which exists already"))
    return problems
