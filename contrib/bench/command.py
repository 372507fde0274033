"""The command line of the bench."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import asdict

from bench import drain, flood, full, kill, limits_memory, memory, nginx, plot, plugins_cost, profile, reload, wrong
from bench.edge import parts as edge
from bench.figures import Verdict
from bench.ground import Ground
from bench.machine import MIB, Cores, choose_cores, describe, raise_file_limit
from bench.neighbours import NEIGHBOURS
from bench.offered import ARRIVALS
from bench.part import Part
from bench.programs import GATEWAY, REDIS, NotStarted, Running, Variant, parse_variant
from bench.result import NoResult
from bench.rounds import CONNECTIONS, start_origin
from bench.scenarios import COMPARED, SCENARIOS, Scenario
from bench.transfers import TransferFailed
from bench.workers import parts as workers

COMMANDS = {
    "compare": "CPU per request, rates and memory of the gateway and its neighbours (the default)",
    "latency": "latency against offered load",
    "http2": "HTTP/2 and HTTP/1.1 over TLS",
    "sweep": "large bodies, many routes, few and many connections",
    "endurance": "10,000 requests a second for a minute, every policy on",
    "full": "all of these, about a quarter of an hour",
    "plot": "draw what --json has written",
    "memory": "large bodies with a client that stalls, and idle connections",
    "limits": "a million addresses against a rate limit, and what they leave behind",
    "reload": "SIGHUP again and again under full load",
    "waits": "the longest wait of a client during 20 reloads of 10,000 routes, and without",
    "drain": "SIGTERM under load",
    "kill": "one of two targets killed under load",
    "workers": "several workers: CPU, exactness, memory, one that is killed, reloads and upgrades under load",
    "edge": "new connections, TLS, HTTP/2, bodies, gRPC, beside nginx, HAProxy and Envoy; a stream that lasts",
    "flood": "wrong client secrets and wrong tokens under load",
    "wrong": "wrong credentials of each kind, 500 a second, under load",
    "plugins": "policies in Python: one, three, an async one; and compression's longest turn",
    "profile": "where the gateway's time goes",
}
KEPT, BROKEN, UNUSABLE = 0, 1, 2


def _cores(text: str) -> Cores:
    proxy, load = map(int, text.split(","))
    return Cores(proxy, load)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _scenarios(text: str) -> list[Scenario]:
    known = {scenario.name: scenario for scenario in SCENARIOS}
    unknown = [name for name in _names(text) if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in _names(text)]


def parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--gateway",
        action="append",
        type=parse_variant,
        metavar="[NAME=]COMMAND",
        help="a gateway instead of this checkout's; compare takes several. In it {config}, {port}, {origin}, {python}, "
        "{twistd} and {profile} are filled in",
    )
    shared.add_argument("--cores", type=_cores, metavar="PROXY,LOAD", help="default: the last and the first")
    shared.add_argument(
        "--connections", type=int, metavar="N", help="of the load; default 64, for kill 32, for memory 5000 idle ones"
    )
    shared.add_argument("--keep", action="store_true", help="leave configurations and logs behind, and say where")
    whole = argparse.ArgumentParser(prog="bench.py", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True)
    added = {
        name: commands.add_parser(name, parents=[shared], help=text, description=text)
        for name, text in COMMANDS.items()
    }
    for name in full.COMMANDS:
        one = added[name]
        one.add_argument("--rounds", type=int, help="each part has its own default")
        one.add_argument("--seconds", type=int, help="of load for each program in each round; likewise")
        one.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
        one.add_argument("--plot", type=Path, metavar="FILE", help="draw costs and latencies there, as PNG")
        one.set_defaults(scenarios=COMPARED, only=[], arrivals="random")
    for name in ("compare", "full"):
        one = added[name]
        one.add_argument(
            "--only", type=_names, metavar="NAME,…", help="programs to compare: nginx, haproxy, envoy, apigw …"
        )
        one.add_argument(
            "--scenarios",
            type=_scenarios,
            metavar="NAME,…",
            help=f"of the gateway in the comparison, of {', '.join(scenario.name for scenario in SCENARIOS)}",
        )
    for name in ("latency", "endurance", "full"):
        added[name].add_argument("--arrivals", choices=tuple(ARRIVALS), help="of what is offered; default random")
    added["plot"].add_argument("results", type=Path, help="what --json has written")
    added["plot"].add_argument("image", type=Path, help="PNG")
    added["memory"].add_argument("--size", type=int, default=1024, metavar="MIB", help="of a large body")
    added["memory"].add_argument("--stall", type=float, default=5.0, metavar="SECONDS")
    added["reload"].add_argument("--reloads", type=int, default=200)
    _of_workers(added["workers"])
    _of_edge(added["edge"])
    added["waits"].add_argument("--reloads", type=int, default=20)
    added["waits"].add_argument("--workers", type=int, default=1)
    added["profile"].add_argument("--seconds", type=int, default=8)
    added["profile"].add_argument("--scenario", type=_scenarios, default=_scenarios("bare"))
    added["profile"].add_argument(
        "--output", type=Path, default=Path("profile"), metavar="FILE", help="its suffix is chosen"
    )
    return whole


def _of_edge(one: argparse.ArgumentParser) -> None:
    of = edge.Asked()
    names = _parts_of(edge.PARTS)
    one.add_argument("--only", type=names, default=[], metavar="NAME,…", help=", ".join(edge.PARTS))
    one.add_argument("--rounds", type=int, default=of.rounds, help="default %(default)s")
    one.add_argument("--seconds", type=int, default=of.seconds, help="of load in each; default %(default)s")
    one.add_argument("--posts", type=int, default=of.posts, help="of one client in a round; default %(default)s")
    one.add_argument("--stream", type=float, default=0.0, metavar="SECONDS", help="only one gRPC stream that lasts")
    one.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")


def _of_workers(one: argparse.ArgumentParser) -> None:
    of = workers.Asked()
    one.add_argument(
        "--only", type=_parts_of(workers.PARTS), default=[], metavar="NAME,…", help=", ".join(workers.PARTS)
    )
    one.add_argument("--rounds", type=int, default=of.rounds, help="of cost and limit; default %(default)s")
    one.add_argument("--seconds", type=int, default=of.seconds, help="of load in each; default %(default)s")
    one.add_argument("--reloads", type=int, default=of.reloads, help="of changes; default %(default)s")
    one.add_argument("--upgrades", type=int, default=of.upgrades, help="of changes; default %(default)s")
    one.add_argument("--fresh", type=float, default=of.fresh, help="of changes: new connections/s; default %(default)g")
    one.add_argument("--rate", type=float, default=of.rate, help="of death: requests/s; default %(default)g")


def _parts_of(parts: Mapping[str, object]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        unknown = [name for name in _names(text) if name not in parts]
        if unknown:
            raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(parts)}")
        return _names(text)

    return names


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _conclude(verdicts: Sequence[Verdict]) -> int:
    for verdict in verdicts:
        print(verdict)
    return KEPT if all(verdict.kept for verdict in verdicts) else BROKEN


def _machine() -> dict[str, str]:
    """The machine, and the version of each program that is installed."""
    said: dict[str, str] = {}
    for program in (nginx.ORIGIN, *(neighbour.program for neighbour in NEIGHBOURS), REDIS):
        text = program.said_version()
        if text and text not in said.values():
            said[program.name] = text
    return {**describe(), **said}


def _measure(options: argparse.Namespace, variants: Sequence[Variant], ground: Ground) -> int:
    """The parts of the comparison that the command stands for."""
    whole: dict[str, Any] = {"machine": _machine(), "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    for name, text in whole["machine"].items():
        print(f"- {name}: {text}", flush=True)
    verdicts: list[Verdict] = []
    asked = full.Asked(variants, options.scenarios, options.only, options.arrivals)
    chosen = lambda name: full.settings(name, options.rounds, options.seconds, options.connections)  # noqa: E731
    for part in full.run(full.COMMANDS[options.command], ground, asked, chosen):
        print(part, flush=True)
        verdicts += part.verdicts
        whole[part.name] = {"settings": asdict(chosen(part.name)), **part.data}
        whole["verdicts"] = [asdict(verdict) for verdict in verdicts]
        # After every part: a run that is interrupted has not been for nothing.
        if options.json:
            options.json.write_text(json.dumps(whole, indent=1))
        if options.plot:
            _plot(whole, options.plot)
    print("\n## Verdicts\n")
    return _conclude(verdicts)


def _plot(whole: Mapping[str, Any], file: Path) -> int:
    try:
        plot.draw(whole, file)
    except LookupError as error:
        _say(f"no plot: {error}")
        return UNUSABLE
    return KEPT


def _profile(options: argparse.Namespace, ground: Ground) -> int:
    if not shutil.which("wrk"):
        _say("wrk is not installed: there is no load under which to look")
        return UNUSABLE
    print(profile.run(ground, options.scenario[0], options.seconds, options.connections or 64, options.output))
    return KEPT


def _workers(options: argparse.Namespace, ground: Ground) -> int:
    asked = workers.Asked(
        options.rounds,
        options.seconds,
        options.connections or CONNECTIONS,
        options.reloads,
        options.upgrades,
        options.fresh,
        options.rate,
    )
    return _conclude_parts(workers.run(options.only, ground, asked))


def _edge(options: argparse.Namespace, ground: Ground) -> int:
    for name, text in _machine().items():
        print(f"- {name}: {text}", flush=True)
    asked = edge.Asked(options.rounds, options.seconds, options.posts, options.stream)
    return _conclude_parts(edge.run(options.only, ground, asked), options.json)


def _conclude_parts(parts: Iterable[Part], file: Path | None = None) -> int:
    verdicts: list[Verdict] = []
    data: dict[str, Any] = {"machine": _machine()} if file else {}
    for part in parts:
        print(part, flush=True)
        for verdict in part.verdicts:
            print(verdict, flush=True)
        verdicts += part.verdicts
        if file:
            data[part.name] = part.data
            file.write_text(json.dumps(data, indent=1))
    print("\n## Verdicts\n")
    return _conclude(verdicts)


def _origin(ground: Ground) -> Running:
    return start_origin(ground.cores.load, ground.directory, ground.stack, ground.say)


def _check(options: argparse.Namespace, ground: Ground) -> int:
    size = {} if options.connections is None else {"connections": options.connections}
    checks: dict[str, Callable[[], Coroutine[Any, Any, list[Verdict]]]] = {
        "memory": lambda: memory.check(ground, options.size * MIB, options.stall, **size),
        "limits": lambda: limits_memory.check(ground),
        "reload": lambda: reload.check(ground, options.reloads, **size),
        "waits": lambda: reload.waits(ground, _origin(ground), options.workers, options.reloads),
        "drain": lambda: drain.check(ground, **size),
        "kill": lambda: kill.check(ground, **size),
        "flood": lambda: flood.check(ground, **size),
    }
    return _conclude(asyncio.run(checks[options.command]()))


def main(arguments: Sequence[str]) -> int:
    """Run one command. 0: every promise was kept; 1: one was not; 2: nothing could be measured."""
    if not arguments or (arguments[0] not in COMMANDS and arguments[0] not in ("-h", "--help")):
        arguments = ["compare", *arguments]
    options = parser().parse_args(arguments)
    if options.command == "plot":
        return _plot(json.loads(options.results.read_text()), options.image)
    # SIGTERM ends us as Ctrl-C does: through every `finally`, so that nothing we started is left behind.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    raise_file_limit()
    cores = options.cores or choose_cores(os.sched_getaffinity(0))
    if cores.shared:
        _say("one core for the proxy and the load together: costs are comparable, rates and latencies are not")
    os.sched_setaffinity(0, {cores.load})
    variants: list[Variant] = options.gateway or [GATEWAY]
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="bench-"))
        if options.keep:
            stack.callback(_say, f"left behind: {shlex.quote(str(directory))}")
        else:
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        ground = Ground(variants[0], cores, directory, stack, _say)
        try:
            if options.command in full.COMMANDS:
                return _measure(options, variants, ground)
            if options.command == "profile":
                return _profile(options, ground)
            if options.command == "workers":
                return _workers(options, ground)
            if options.command == "edge":
                return _edge(options, ground)
            if options.command == "wrong":
                return _conclude(wrong.check(ground))
            if options.command == "plugins":
                return _conclude(plugins_cost.check(_say))
            return _check(options, ground)
        except (NotStarted, LookupError) as error:
            _say(str(error))
            return UNUSABLE
        except (NoResult, TransferFailed, OSError) as error:
            _say(f"broken off: {str(error) or repr(error)}")
            return BROKEN
        except KeyboardInterrupt:
            _say("interrupted")
            return 130
