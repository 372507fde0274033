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
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import compare, drain, flood, kill, limits_memory, memory, profile, reload
from bench.figures import Verdict, added_verdict, as_json, cost_verdict, report, summarize
from bench.ground import Ground
from bench.machine import MIB, Cores, choose_cores, describe, raise_file_limit
from bench.programs import GATEWAY, NEIGHBOURS, NGINX_ORIGIN, NotStarted, Variant, parse_variant
from bench.scenarios import ADDED, DEFAULT, SCENARIOS, TARGETS, Scenario
from bench.transfers import TransferFailed
from bench.wrk import NoResult

COMMANDS = {
    "compare": "CPU per request, rates and latencies of the gateway and its neighbours (the default)",
    "memory": "large bodies with a client that stalls, and idle connections",
    "limits": "a million addresses against a rate limit, and what they leave behind",
    "reload": "SIGHUP again and again under full load",
    "drain": "SIGTERM under load",
    "kill": "one of two targets killed under load",
    "flood": "wrong client secrets under load",
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
    one = added["compare"]
    one.add_argument("--rounds", type=int, default=5)
    one.add_argument("--seconds", type=int, default=4, help="of load for each program in each round")
    one.add_argument(
        "--only", type=_names, default=[], metavar="NAME,…", help="programs to run: nginx, haproxy, apigw …"
    )
    one.add_argument(
        "--scenarios",
        type=_scenarios,
        default=_scenarios(",".join(DEFAULT)),
        metavar="NAME,…",
        help=f"of {', '.join(scenario.name for scenario in SCENARIOS)}",
    )
    one.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    added["memory"].add_argument("--size", type=int, default=1024, metavar="MIB", help="of a large body")
    added["memory"].add_argument("--stall", type=float, default=5.0, metavar="SECONDS")
    added["reload"].add_argument("--reloads", type=int, default=200)
    added["profile"].add_argument("--seconds", type=int, default=8)
    added["profile"].add_argument("--scenario", type=_scenarios, default=_scenarios("bare"))
    added["profile"].add_argument(
        "--output", type=Path, default=Path("profile"), metavar="FILE", help="its suffix is chosen"
    )
    return whole


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _conclude(verdicts: Sequence[Verdict]) -> int:
    for verdict in verdicts:
        print(verdict)
    return KEPT if all(verdict.kept for verdict in verdicts) else BROKEN


def _compare(options: argparse.Namespace, variants: Sequence[Variant], ground: Ground) -> int:
    if not shutil.which("wrk"):
        _say("wrk is not installed: there is nothing to measure with")
        return UNUSABLE
    versions = {program.name: program.said_version() for program in (NGINX_ORIGIN, *NEIGHBOURS)}
    machine = {**describe(), **{name: text for name, text in versions.items() if text}}
    for name, text in machine.items():
        print(f"{name}: {text}", flush=True)
    connections = options.connections or 64
    contestants = compare.line_up(
        variants, options.scenarios, options.only, ground.cores, ground.directory, ground.stack, _say
    )
    # A neighbour may be missing; that the gateway is missing must not look like success.
    runs = {contestant.name for contestant in contestants}
    missing = [
        Verdict(f"{name} runs", False, "it was left out, see above", "runs")
        for name in compare.wanted_names(variants, options.scenarios, options.only)
        if name not in runs
    ]
    if not contestants:
        return _conclude(missing) or UNUSABLE
    samples = compare.run(contestants, options.rounds, options.seconds, connections, _say)
    summaries = summarize(samples, "nginx")
    print(f"\n{options.rounds} rounds of {options.seconds} s, {connections} connections, medians\n")
    print(report(summaries), end="\n\n")
    if options.json:
        settings = {"rounds": options.rounds, "seconds": options.seconds, "connections": connections}
        whole = {"machine": machine, "settings": settings, "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        options.json.write_text(json.dumps({**whole, **as_json(samples, summaries)}, indent=1))
    verdicts = missing + [
        Verdict(f"errors, {one.contestant}", False, f"{one.failed} requests failed", "none")
        for one in summaries
        if one.failed
    ]
    names = {scenario.name: scenario for scenario in SCENARIOS}
    for variant in variants:
        for target in TARGETS:
            against = names.get(target.against)
            reference = compare.contestant_name(variant.name, against) if against else target.against
            measured = compare.contestant_name(variant.name, names[target.scenario])
            verdict = cost_verdict(samples, measured, reference, target.most)
            if verdict is not None:
                verdicts.append(verdict)
        for extra in ADDED:
            measured = compare.contestant_name(variant.name, names[extra.scenario])
            over = compare.contestant_name(variant.name, names[extra.over])
            verdict = added_verdict(samples, measured, over, "nginx", extra.most)
            if verdict is not None:
                verdicts.append(verdict)
    return _conclude(verdicts)


def _profile(options: argparse.Namespace, ground: Ground) -> int:
    if not shutil.which("wrk"):
        _say("wrk is not installed: there is no load under which to look")
        return UNUSABLE
    print(profile.run(ground, options.scenario[0], options.seconds, options.connections or 64, options.output))
    return KEPT


def _check(options: argparse.Namespace, ground: Ground) -> int:
    size = {} if options.connections is None else {"connections": options.connections}
    checks: dict[str, Callable[[], Coroutine[Any, Any, list[Verdict]]]] = {
        "memory": lambda: memory.check(ground, options.size * MIB, options.stall, **size),
        "limits": lambda: limits_memory.check(ground),
        "reload": lambda: reload.check(ground, options.reloads, **size),
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
            if options.command == "compare":
                return _compare(options, variants, ground)
            if options.command == "profile":
                return _profile(options, ground)
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
