"""Where the gateway's time goes: py-spy where it is installed, else the profiler that twistd brings."""

from __future__ import annotations

import io
import pstats
import shutil
import signal
import subprocess
from pathlib import Path

from bench import wrk
from bench.ground import Ground
from bench.programs import HOST
from bench.rounds import start_beside, start_origin
from bench.scenarios import Scenario


def run(ground: Ground, scenario: Scenario, seconds: int, connections: int, output: Path, lines: int = 40) -> str:
    """Load the gateway for ``seconds`` and return what to read; the profile itself goes to ``output``.

    py-spy samples from outside and hardly disturbs; its flame graph is an SVG. cProfile counts every call and makes the
    gateway two to three times slower: its proportions flatter code that calls little. Raises ``LookupError`` where
    neither can be had.
    """
    sampler = shutil.which("py-spy")
    if sampler is None and not ground.variant.profiles_itself:
        raise LookupError("py-spy is not installed, and the command has no {profile} in which to ask twistd for one")
    counts = output.with_suffix(".pstats").absolute()
    asked = () if sampler else (f"--profile={counts}", "--profiler=cprofile", "--savestats")
    origin = start_origin(ground.cores.load, ground.directory, ground.stack, ground.say)
    beside = start_beside(scenario, ground.cores.load, ground.directory, ground.stack)
    gateway = ground.gateway(scenario.config, (origin.port, *beside), asked)
    url = f"http://{HOST}:{gateway.port}{scenario.path}"
    wrk.run(url, 1, connections, scenario.headers, scenario.authorizations())
    if sampler is None:
        result = wrk.run(url, seconds, connections, scenario.headers, scenario.authorizations())
        gateway.stop(30.0)
        return (
            f"{result.requests / result.seconds:,.0f} requests/s under cProfile; {counts}\n\n{_heaviest(counts, lines)}"
        )
    graph = output.with_suffix(".svg").absolute()
    command = [
        sampler,
        "record",
        "--native",
        "--rate=500",
        f"--duration={seconds}",
        f"--output={graph}",
        f"--pid={gateway.session}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as recording:
        try:
            result = wrk.run(url, seconds + 1, connections, scenario.headers, scenario.authorizations())
            said, _ = recording.communicate(timeout=60)
        except BaseException:
            recording.send_signal(signal.SIGINT)
            raise
    if recording.returncode:
        raise LookupError(f"py-spy could not: {said.strip()}")
    return f"{result.requests / result.seconds:,.0f} requests/s; flame graph: {graph}"


def _heaviest(counts: Path, lines: int) -> str:
    text = io.StringIO()
    pstats.Stats(str(counts), stream=text).strip_dirs().sort_stats("tottime").print_stats(lines)
    return text.getvalue().strip()
