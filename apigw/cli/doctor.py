"""``apigw doctor``: what is wrong or unusual on this machine, for a configuration.

Nothing is changed. Each examination is a function that yields what it found.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from math import ceil
from pathlib import Path
from urllib.parse import urlsplit

from apigw import __version__, is_compiled
from apigw.cli.admin import Admin, NotAnswered
from apigw.cli.outcome import FOUND, REFUSED, loaded
from apigw.config import endpoints, files
from apigw.config.addresses import DEFAULT_PORTS
from apigw.config.model import Config
from apigw.config.units import counted, size_text
from apigw.policy.auth.model import auth_of
from apigw.policy.check.model import ChecksSection
from apigw.policy.tracing.model import tracing_of
from apigw.process.cores import workers
from apigw.process.descriptors import SPARE

PATIENCE = 2.0
"""Seconds for each connection that is tried."""

RENEWAL = 30 * 24 * 3600.0
"""A certificate that expires sooner is a warning: those of Let's Encrypt are renewed this long before."""

DISK = 0.05
"""Share of a file system that should be free where a log is written."""

FINE, WARN = "ok", "warn"

Found = tuple[str, str]


def doctor(options: argparse.Namespace) -> int:
    config = loaded(options.directory)
    if config is None:
        return REFUSED
    warnings = 0
    for examine in _examinations(os.path.realpath(options.directory)):
        for verdict, sentence in examine(config):
            warnings += verdict == WARN
            print(f"{verdict:<5}{sentence}")
    print(f"{options.directory}: {counted(warnings, 'warning')}")
    return REFUSED if warnings else FOUND


def _program(config: Config) -> Iterator[Found]:
    build = f"apigw {__version__}, Python {platform.python_version()}"
    if is_compiled():
        yield FINE, f"{build}, compiled"
    else:
        yield WARN, f"{build}: not compiled, so a request costs two to three times the CPU (docs/howto/deploy.md)"


def _warnings(config: Config) -> Iterator[Found]:
    number = len(config.warnings)
    yield (
        (WARN if number else FINE),
        f"the configuration has {counted(number, 'warning')}" + (": see `apigw check`" if number else ""),
    )


def _cores(config: Config) -> Iterator[Found]:
    usable, number = workers("auto"), workers(config.gateway.workers)
    if number == usable:
        yield FINE, f"{counted(number, 'worker')}, as many as cores"
    elif number < usable:
        yield WARN, f"gateway.workers: {number}, and this machine has {usable} cores: `auto` uses all"
    else:
        yield WARN, f"gateway.workers: {number}, but only {usable} cores may be used here"


def _open_files(config: Config) -> Iterator[Found]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * ceil(config.gateway.max_connections / workers(config.gateway.workers)) + SPARE
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        yield FINE, f"a process may open {hard} files, and needs up to {wanted}"
    else:
        yield WARN, f"a process may open {hard} files, and needs up to {wanted}: raise LimitNOFILE or `ulimit -Hn`"


def _backlog(config: Config) -> Iterator[Found]:
    most = _number("/proc/sys/net/core/somaxconn")
    if most is not None and most < 1024:
        yield WARN, f"net.core.somaxconn is {most}: bursts of new connections are dropped; 4096 is usual"


def _memory(config: Config) -> Iterator[Found]:
    gateway = config.gateway
    wanted = gateway.limits_memory + gateway.max_buffered
    limit = _number("/sys/fs/cgroup/memory.max")
    if limit is not None and limit < 2 * wanted:
        yield (
            WARN,
            f"the control group has {size_text(limit)} of memory; limits_memory and max_buffered may take "
            f"{size_text(wanted)} of it",
        )


def _gateway(directory: str, config: Config) -> Iterator[Found]:
    """The gateway that runs with this configuration; if none does, whether its ports are free."""
    try:
        admin = Admin.of_endpoint(config.gateway.admin)
        status = admin.get("/status")
    except (NotAnswered, ValueError):
        for endpoint in (*(listen.endpoint for listen in config.gateway.listen), config.gateway.admin):
            if endpoint is not None:
                yield from _port(endpoint)
        return
    version = status.get("version")
    yield FINE, f"a gateway answers at {admin}: version {version}, process {status.get('process')}"
    other = status.get("directory")
    if isinstance(other, str) and os.path.realpath(other) != directory:
        yield WARN, f"it reads {other}, and not {directory}: if it is to go on beside this one, change the ports here"
        for listen in config.gateway.listen:
            yield from _port(listen.endpoint)
    if version != __version__:
        yield WARN, f"it is version {version}, and this program {__version__}: `apigw upgrade`, or a restart"
    if status.get("last_reload") == "failed":
        yield WARN, "its last reload failed: `apigw reload` says why"


def _port(endpoint: str) -> Iterator[Found]:
    parsed = endpoints.parse(endpoint)
    if parsed.kind not in ("tcp", "tcp6", "ssl") or parsed.get("port") == "0":
        return
    family = socket.AF_INET6 if parsed.kind == "tcp6" else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((parsed.get("interface"), int(parsed.get("port"))))
            yield FINE, f"{endpoint} is free"
        except OSError as error:
            yield WARN, f"{endpoint} cannot be used: {error.strerror}"


def _targets(config: Config) -> Iterator[Found]:
    for service in config.services:
        for target in service.targets:
            if target.lookup != "srv":
                yield _connects(f"service {service.name}: target {target.host}", target.host, target.port)


def _redis(config: Config) -> Iterator[Found]:
    if config.redis is not None:
        parts = urlsplit(config.redis.url)
        for host, port in config.redis.sentinels or ((parts.hostname, parts.port or 6379),):
            if host:
                yield _connects(f"redis: {host}", host, port)


def _others(config: Config) -> Iterator[Found]:
    """What else the gateway asks: where keys are fetched, who introspects and decides, and the collector of spans."""
    for name, url in _asked(config):
        parts = urlsplit(url)
        if parts.hostname:
            yield _connects(f"{name}: {parts.hostname}", parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme])


def _asked(config: Config) -> Iterator[tuple[str, str]]:
    auth, tracing = auth_of(config), tracing_of(config)
    if auth is not None:
        for verifier in auth.jwt:
            url = verifier.jwks_url or (verifier.issuer if verifier.openid else None)
            if url is not None:
                yield f"keys of {verifier.name}", url
        for provider in auth.introspection:
            yield f"introspection by {provider.name}", provider.url
    for check in config.of(ChecksSection).checks:
        yield f"check {check.name}", check.url
    if tracing is not None:
        yield "collector of traces", tracing.otlp


def _connects(name: str, host: str, port: int) -> Found:
    begun = time.monotonic()
    try:
        with socket.create_connection((host, port), PATIENCE):
            took = time.monotonic() - begun
    except OSError as error:
        return WARN, f"{name}:{port}: {error.strerror or error}"
    return FINE, f"{name}:{port}: connected in {1000 * took:.1f} ms"


def _certificates(config: Config) -> Iterator[Found]:
    named = {
        certificate.cert_file
        for listen in config.gateway.listen
        if listen.tls is not None
        for certificate in listen.tls.certificates
    }
    named |= {service.tls.client_cert_file for service in config.services if service.tls.client_cert_file}
    for file in sorted(named):
        left = files.certificates(files.read(file))[0].not_valid_after_utc.timestamp() - time.time()
        days = f"{abs(left) / 86400:.0f} days"
        if left < 0:
            yield WARN, f"{file}: the certificate expired {days} ago"
        else:
            yield (WARN if left < RENEWAL else FINE), f"{file}: the certificate expires in {days}"


def _logs(config: Config) -> Iterator[Found]:
    log = config.gateway.access_log
    if log is None or log.file == "-":
        return
    folder = os.path.dirname(log.file)
    usage = shutil.disk_usage(folder)
    free = usage.free / usage.total
    yield (WARN if free < DISK else FINE), f"{folder}: {free:.0%} of the disk is free for the access log"
    if not os.access(log.file if os.path.exists(log.file) else folder, os.W_OK):
        yield WARN, f"{log.file} cannot be written by this user"


def _number(file: str) -> int | None:
    try:
        return int(Path(file).read_text("ascii"))
    except (OSError, ValueError):
        return None


def _examinations(directory: str) -> tuple[Callable[[Config], Iterator[Found]], ...]:
    return (
        _program,
        _warnings,
        _cores,
        _open_files,
        _backlog,
        _memory,
        partial(_gateway, directory),
        _targets,
        _redis,
        _others,
        _certificates,
        _logs,
    )
