"""Constructs the program: all of its parts, and their dependencies (composition root)."""

from __future__ import annotations

import os
import signal
from collections import ChainMap
from collections.abc import Callable
from functools import partial
from random import random
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from apigw import __version__
from apigw.admin.site import admin_resources, own_resources
from apigw.admin.status.facts import Facts
from apigw.admin.status.history import History
from apigw.admin.status.page import in_steps
from apigw.admin.writes import Writes, may_read
from apigw.config import endpoints
from apigw.config.model import Config, Listen
from apigw.contract.policy import Context
from apigw.ops.access_log import AccessLog
from apigw.ops.audit_log import Audit, AuditLog, unaudited
from apigw.ops.exposition import Exposition
from apigw.ops.measured import Certificates, Pools
from apigw.ops.metrics import Lag, Metrics
from apigw.ops.readiness import Readiness
from apigw.policy.all import POLICIES
from apigw.process.current import Current
from apigw.process.drain import Drain
from apigw.process.garbage import Garbage
from apigw.process.listeners import PublicListeners, listener
from apigw.process.place import Place
from apigw.process.renewal import Renewal
from apigw.process.reports import Reports
from apigw.process.signals import ENDING, Obeying, Signals, Stop
from apigw.process.snapshot import Parts, Snapshot, compile, compiling
from apigw.process.systemd import watchdog
from apigw.process.tree import LogFile, Ordered, Running, Ticking, Upstreams
from apigw.proxy.accounting import Accounting
from apigw.proxy.body import WholeBodies
from apigw.proxy.held_body import Buffers
from apigw.proxy.pipeline import Pipeline
from apigw.proxy.resources import admit, measure, metrics_page, public_resources
from apigw.proxy.shedding import Shedding
from apigw.proxy.site import Site, refusal_answer
from apigw.redis.link import RedisLink
from apigw.shared.slots import BUFFERED, IN_FLIGHT
from apigw.upstream.build import build
from apigw.upstream.name_servers import NameServers
from apigw.upstream.named_targets import own_listeners
from apigw.upstream.names import Names
from apigw.upstream.resolver import Resolver
from apigw.wire.agent import Agent
from apigw.wire.channel import ChannelFactory
from apigw.wire.client_tls import ClientTLS
from apigw.wire.deadlines import Deadlines
from apigw.wire.fetch import Fetch
from apigw.wire.request import Request

log = Logger()


class Program:
    """Constructed, and not started: ``root`` starts and stops every part. Raises ``ConfigError``.

    Timeouts and durations go by the reactor's clock; ``now`` is Unix time, for tokens, logs and times that clients get.
    What depends on whether there are other workers, ``place`` decides.
    """

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        signals: Signals,
        config: Config,
        directory: str,
        place: Place,
        log_decisions: bool = False,
    ) -> None:
        seconds, gateway, machine = reactor.seconds, config.gateway, place.machine
        deadlines = Deadlines(reactor)
        self.metrics = metrics = Metrics(CollectorRegistry(), __version__)
        for collector in place.collectors():
            metrics.registry.register(collector)
        readiness = Readiness(reactor)
        names = Names(reactor, NameServers(reactor), metrics.lookups, random, place.page)
        listens = [listen.endpoint for listen in gateway.listen] + ([gateway.admin] if gateway.admin else [])
        upstreams = Upstreams(reactor, machine, names, own_listeners(listens))
        buffers = Buffers(gateway.max_buffered, place.tally(BUFFERED))
        redis = None if config.redis is None else RedisLink(config.redis, reactor)
        agent = Agent(reactor, deadlines, lambda host: ClientTLS().to(host))

        def client_address(request: Request) -> bytes:
            return pipeline.table.peers.client_address(request)

        audit_log = _audit_log(config, reactor, now, metrics.lines_lost("audit"))
        audit: Audit = unaudited if audit_log is None else audit_log.note
        context = Context(
            reactor=reactor,
            now=now,
            config=config,
            deadlines=deadlines,
            metrics=metrics,
            agent=agent,
            fetch=partial(Fetch, agent),
            bodies=WholeBodies(buffers),
            client_address=client_address,
            audit=audit,
            set_guard=lambda guard: setattr(pipeline, "guard", guard),
            may_write=lambda request: writes.check(request),
            redis=redis,
            machine=machine,
            page=place.page,
        )
        policies = [policy(context) for policy in POLICIES]
        self.parts = parts = Parts(
            build=lambda service: build(service, reactor, deadlines, metrics.service(service.name), place.page),
            series=metrics.route,
            policies=policies,
            deadlines=deadlines,
            buffers=buffers,
            log_decisions=log_decisions,
        )
        first = compile(config, None, parts)

        access_log = _access_log(config, reactor, metrics.lines_lost("access"))
        accounting = Accounting(metrics, access_log, seconds, now)
        public = Site(
            accounting.resource_ended,
            seconds,
            client_address,
            lambda request: admit(request, pipeline.table.peers, current.snapshot.prepared.values()),
        )
        pipeline = Pipeline(
            first.table,
            seconds,
            accounting.exchange_ended,
            public.on_request,
            metrics.shed,
            place.tally(IN_FLIGHT),
        )
        refuse = partial(refusal_answer, accounting.refused)
        channels = ChannelFactory(
            first.settings, deadlines, pipeline.on_request, refuse, now, metrics.turned_away, place.gate, place.crowd
        )
        in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
        measured = partial(measure, metrics, pipeline, channels, buffers)
        exposition = Exposition(metrics_page(machine, metrics, measured, in_thread, reactor), reactor)

        def show(snapshot: Snapshot) -> None:
            reserved, prepared = snapshot.config.reserved, snapshot.prepared.values()
            public.reserve(public_resources(reserved, readiness, exposition, snapshot.may_scrape, prepared))
            pipeline.reserved = public.reserved
            admin.reserve(admin_resources(own, prepared))

        self.current = current = Current(
            first,
            show,
            pipeline=pipeline,
            channels=channels,
            upstreams=upstreams,
            readiness=readiness,
            redis=redis,
            buffers=buffers,
            metrics=metrics,
            reports=Reports(place.speaks, machine.workers),
        )

        listeners = [
            listener(
                reactor,
                config,
                listen,
                ("gateway", "listen", index),
                channels,
                place.socket(index),
                place.gate,
                first.authorities,
            )
            for index, listen in enumerate(gateway.listen)
        ]
        metrics.registry.register(Pools(upstreams.pools))
        metrics.registry.register(Certificates(lambda: ChainMap(*(each.ends for each in listeners))))
        garbage = Garbage(reactor, place.at_start)
        self.renewal = Renewal(
            reactor,
            lambda config, previous: compiling(config, previous, parts),
            listeners,
            current,
            garbage,
        )

        def reloaded(succeeded: bool, counts: bool) -> None:
            metrics.reloaded(succeeded, counts)
            if counts:
                outcome = {"changed": reload.changed} if succeeded else {"problems": reload.problems}
                audit("reload", "succeeded" if succeeded else "failed", "gateway", digest=reload.digest, **outcome)

        reload = place.reloading(signals, directory, self.renewal, reloaded, lambda: current.snapshot.config)
        drain = Drain(reactor, channels, pipeline, lambda: current.snapshot.config.gateway.drain_timeout)
        ports = PublicListeners(reactor, readiness, lambda: current.snapshot.config.gateway.drain_delay)
        for each in listeners:
            each.setServiceParent(ports)
        stop = Stop(reactor, drain.cut, ports.close_now)
        for number in ENDING:
            signals.on(number, stop)

        history = History(reactor, metrics.routes)
        shedding = Shedding(pipeline.late, lambda: current.snapshot.config.gateway.max_lag)
        lag = Lag(metrics.reactor_lag, shedding.observe)
        deadlines.observe_lag = lag.observe
        steps = in_steps(reactor)
        facts = Facts(
            seconds,
            current,
            pipeline,
            channels,
            reload,
            history,
            lag,
            directory,
            machine,
            steps,
            in_thread,
            place.load_of,
        )
        admin = Site(
            lambda *_: None,
            seconds,
            lambda request: request.stream.peer,
            lambda request: may_read(request, current.snapshot.config.gateway.admin_hosts),
        )
        writes = Writes(seconds, lambda: current.snapshot.admin_token, audit)
        own = own_resources(reactor, current, facts, readiness, exposition, machine, writes, audit)
        self.root = Ordered()
        alive = watchdog(reactor, os.environ)
        if alive is not None:
            self._add(alive)
        self._add(Ticking(deadlines), Running(Resolver(reactor, metrics.lookups)))
        self._add(Running(history))
        if access_log is not None:
            self._add(LogFile(access_log, "access log"))
            signals.on(signal.SIGUSR1, access_log.reopen)
        if audit_log is not None:
            self._add(LogFile(audit_log, "audit log"))
            signals.on(signal.SIGUSR1, audit_log.reopen)
        if redis is not None:
            self._add(Running(redis))
        self._add(*map(Running, policies), Running(current), upstreams, *place.services(upstreams.look))
        if gateway.admin is not None:
            uncounted = partial(refusal_answer, lambda *_: None)
            its_channels = ChannelFactory(first.settings, deadlines, admin.on_request, uncounted, now)
            self._add(*place.admin(Listen(endpoints.private(gateway.admin)), its_channels))
        self._add(drain, ports, reload, Obeying(reactor, signals), garbage)

    def _add(self, *services: Any) -> None:
        for service in services:
            service.setServiceParent(self.root)


def _audit_log(
    config: Config, reactor: Any, now: Callable[[], float], count_lost: Callable[[int], object]
) -> AuditLog | None:
    wanted = config.gateway.audit_log
    return None if wanted is None else AuditLog(wanted.file, reactor, now, _warn, count_lost)


def _warn(sentence: str) -> None:
    log.warn("{sentence}", sentence=sentence)


def _access_log(config: Config, reactor: Any, count_lost: Callable[[int], object]) -> AccessLog | None:
    wanted = config.gateway.access_log
    if wanted is None:
        return None

    call = reactor.callFromThread
    return AccessLog(wanted.file, wanted.format, reactor, call, _warn, count_lost=count_lost, fields=wanted.fields)
