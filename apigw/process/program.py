"""The bill of materials: every part of the program, and which knows which."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.web.resource import IResource

from apigw import __version__
from apigw.admin.site import admin_resources
from apigw.admin.status.facts import Facts
from apigw.admin.status.history import History
from apigw.config.load import load
from apigw.config.model import Config, Listen
from apigw.contract.policy import Policy
from apigw.ops.access_log import AccessLog
from apigw.ops.exposition import Exposition
from apigw.ops.metrics import LagProbe, Metrics
from apigw.ops.readiness import Readiness
from apigw.policy.auth.jwks import KeySet
from apigw.policy.auth.keys import MAX_SET_BYTES
from apigw.policy.auth.policy import AuthPolicy
from apigw.policy.cors.policy import CorsPolicy
from apigw.policy.limits.exact_windows import ExactWindows
from apigw.policy.limits.in_redis import RedisStore
from apigw.policy.limits.keys import scope_key
from apigw.policy.limits.memory import MemoryStore
from apigw.policy.limits.policy import LimitsPolicy
from apigw.policy.oauth.client_secrets import SecretThreads
from apigw.policy.oauth.policy import OAuthPolicy
from apigw.policy.oauth.refresh import FamilyStore, MemoryFamilies
from apigw.process.current import Current, Store
from apigw.process.drain import Drain
from apigw.process.garbage import Garbage
from apigw.process.listeners import Listener, PublicListeners, listener
from apigw.process.reload import Reload
from apigw.process.rules import RULES
from apigw.process.signals import ENDING, Obeying, Signals, Stop
from apigw.process.snapshot import Parts, Snapshot, compile
from apigw.process.tree import LogFile, Ordered, Running, Ticking, Upstreams
from apigw.proxy.accounting import Accounting
from apigw.proxy.held_body import Buffers
from apigw.proxy.pipeline import Pipeline
from apigw.proxy.resources import public_resources, render_metrics
from apigw.proxy.site import Site, refusal_answer
from apigw.redis.link import RedisLink
from apigw.upstream.upstream import build
from apigw.wire.agent import Agent
from apigw.wire.channel import ChannelFactory
from apigw.wire.client_tls import ClientTLS
from apigw.wire.deadlines import Deadlines
from apigw.wire.fetch import Fetch
from apigw.wire.request import Request

log = Logger()


class Program:
    """Constructed, and not started: ``root`` starts and stops every part. Raises ``ConfigError``.

    Timeouts and durations go by the reactor's clock; ``now`` is Unix time, for tokens, logs and what clients are told.
    """

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        signals: Signals,
        config: Config,
        directory: str,
        log_decisions: bool = False,
    ) -> None:
        seconds, gateway = reactor.seconds, config.gateway
        deadlines = Deadlines(reactor)
        metrics = Metrics(CollectorRegistry(), __version__)
        readiness = Readiness(reactor)
        upstreams = Upstreams(reactor)
        buffers = Buffers(gateway.max_buffered)
        redis = None if config.redis is None else RedisLink(config.redis, reactor)
        store = _store(redis, reactor, now, metrics)
        windows = MemoryStore(reactor, now)
        threads = SecretThreads(reactor)
        fetch = Fetch(Agent(reactor, deadlines, lambda host: ClientTLS().to(host)), MAX_SET_BYTES)

        def client_address(request: Request) -> bytes:
            return pipeline.table.peers.client_address(request)

        policies: list[Policy] = [
            CorsPolicy(),
            OAuthPolicy(
                now,
                ExactWindows(windows),
                threads.run,
                _families(redis),
                lambda request: _caller(client_address(request)),
            ),
            AuthPolicy(now, lambda url: KeySet(url, fetch, reactor)),
            LimitsPolicy(store, lambda limit: metrics.limit(limit.endpoint, limit.scope).inc()),
        ]
        self.parts = parts = Parts(
            build=lambda service: build(service, reactor, deadlines, metrics.service(service.name)),
            series=metrics.route,
            policies=policies,
            deadlines=deadlines,
            buffers=buffers,
            log_decisions=log_decisions,
        )
        first = compile(config, None, parts)

        access_log = _access_log(config, reactor)
        accounting = Accounting(metrics, access_log, seconds, now)
        public = Site(accounting.resource_ended, seconds, client_address)
        pipeline = Pipeline(first.table, seconds, accounting.exchange_ended, public.on_request)
        refuse = partial(refusal_answer, accounting.refused)
        channels = ChannelFactory(first.settings, deadlines, pipeline.on_request, refuse, now)
        in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
        exposition = Exposition(partial(render_metrics, metrics, pipeline, channels), reactor, in_thread)

        def resources(snapshot: Snapshot) -> dict[bytes, IResource]:
            reserved, policies = snapshot.config.reserved, snapshot.prepared.values()
            return public_resources(reserved, readiness, exposition, snapshot.metrics_allowed, policies)

        self.current = current = Current(
            first,
            resources,
            pipeline=pipeline,
            channels=channels,
            public=public,
            upstreams=upstreams,
            readiness=readiness,
            redis=redis,
            store=store,
            buffers=buffers,
            metrics=metrics,
        )

        listeners = [
            listener(reactor, config, listen, ("gateway", "listen", index), channels)
            for index, listen in enumerate(gateway.listen)
        ]
        reload = Reload(
            reactor,
            lambda: load(directory, os.environ, RULES),
            lambda config, previous: compile(config, previous, parts),
            listeners,
            current,
        )
        drain = Drain(reactor, channels, pipeline, lambda: current.snapshot.config.gateway.drain_timeout)
        ports = PublicListeners(reactor, readiness, lambda: current.snapshot.config.gateway.drain_delay)
        for each in listeners:
            each.setServiceParent(ports)
        stop = Stop(reactor, drain.cut, ports.close_now)
        for number in ENDING:
            signals.on(number, stop)
        signals.on(signal.SIGHUP, reload.reload)

        history = History(reactor, metrics.routes)
        self.root = Ordered()
        self._add(
            Running(current), Ticking(deadlines), Running(LagProbe(reactor, metrics.reactor_lag)), Running(history)
        )
        self._add(Running(threads), Running(windows))
        if access_log is not None:
            self._add(LogFile(access_log))
            signals.on(signal.SIGUSR1, access_log.reopen)
        if redis is not None:
            self._add(Running(redis))
        self._add(Running(store), upstreams)
        if gateway.admin is not None:
            facts = Facts(seconds, current, pipeline, channels, reload, history)
            admin = Site(lambda *_: None, seconds, lambda request: request.stream.peer)
            admin.reserve(admin_resources(reactor, current, facts, readiness, exposition, store, metrics))
            uncounted = partial(refusal_answer, lambda *_: None)
            its_channels = ChannelFactory(first.settings, deadlines, admin.on_request, uncounted, now)
            self._add(Listener(reactor, Listen(gateway.admin), its_channels))
        self._add(drain, ports, reload, Obeying(reactor, signals), Garbage(reactor))

    def _add(self, *services: Any) -> None:
        for service in services:
            service.setServiceParent(self.root)


def _store(redis: RedisLink | None, reactor: Any, now: Callable[[], float], metrics: Metrics) -> Store:
    if redis is None:
        return MemoryStore(reactor, now)
    return RedisStore(redis, reactor, now, metrics.store_up, metrics.store_fallback)


def _families(redis: RedisLink | None) -> FamilyStore:
    if redis is None:
        return MemoryFamilies()
    from apigw.policy.oauth.redis_families import RedisFamilies

    return RedisFamilies(redis)


def _access_log(config: Config, reactor: Any) -> AccessLog | None:
    wanted = config.gateway.access_log
    if wanted is None:
        return None

    def report(sentence: str) -> None:
        log.warn("{sentence}", sentence=sentence)

    return AccessLog(wanted.file, wanted.format, reactor, reactor.callFromThread, report)


def _caller(address: bytes) -> str:
    """What the token endpoint counts a caller by: as limits do, so that nobody has 2**64 addresses."""
    return scope_key("ip", None, None, address.decode("ascii")).hex()
