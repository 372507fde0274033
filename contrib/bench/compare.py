"""The comparison: the gateway and its neighbours, bare and with policies, under one load."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from bench.figures import (
    Sample,
    Verdict,
    added_verdict,
    as_json,
    cost_verdict,
    failures,
    memory_report,
    report,
    summarize,
)
from bench.ground import Ground
from bench.neighbours import NEIGHBOURS
from bench.part import Part
from bench.programs import Running, Variant
from bench.rounds import contestant_name, gateways, line_up, missing, run_rounds
from bench.scenarios import ADDED, SCENARIOS, TARGETS, Scenario


def verdicts(samples: Sequence[Sample], variants: Sequence[Variant]) -> list[Verdict]:
    """On every target of which both sides ran."""
    names = {scenario.name: scenario for scenario in SCENARIOS}
    found = []
    for variant in variants:
        for target in TARGETS:
            against = names.get(target.against)
            reference = contestant_name(variant.name, against) if against else target.against
            measured = contestant_name(variant.name, names[target.scenario])
            found.append(cost_verdict(samples, measured, reference, target.most))
        for extra in ADDED:
            measured = contestant_name(variant.name, names[extra.scenario])
            over = contestant_name(variant.name, names[extra.over])
            found.append(added_verdict(samples, measured, over, "nginx", extra.most))
    return [verdict for verdict in found if verdict is not None]


def run(
    ground: Ground,
    origin: Running,
    rounds: int,
    seconds: int,
    connections: int,
    variants: Sequence[Variant],
    scenarios: Sequence[Scenario],
    only: Sequence[str] = (),
) -> Part:
    """Each gateway with each configuration, and each neighbour. ``only`` names programs; empty means all."""
    theirs = [(one.program, one.scenario) for one in NEIGHBOURS if not only or one.program.name in only]
    ours = gateways([one for one in variants if not only or one.name in only], scenarios)
    started = line_up([*theirs, *ours], origin, ground)
    absent = missing(started, ours)
    title = "CPU per request"
    if not started:
        return Part("compare", title, "Nothing could be started.", {}, absent)
    contestants = [evolve(one, connections=connections) for one in started]
    samples = run_rounds(contestants, rounds, seconds, ground.say)
    summaries = summarize(samples, "nginx")
    text = (
        f"{rounds} rounds of {seconds} s, {connections} connections, medians. n is nginx's cost in the same round.\n\n"
        f"{report(summaries)}\n\n### Memory\n\n{memory_report(summaries)}"
    )
    promises = absent + failures(summaries) + verdicts(samples, variants)
    return Part("compare", title, text, as_json(samples, summaries), promises)
