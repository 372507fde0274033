"""The results as a picture: what a request costs each program, and how long it takes at a given rate. PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import frozen

from bench.scenarios import ALL, ALL_REDIS

OURS, OURS_BARE, THEIRS, INK, PALE = "#c2410c", "#f59e6b", "#64748b", "#1f2937", "#e5e7eb"
_NEIGHBOURS_BARE = ("nginx", "haproxy", "envoy", "fastify-http-proxy", "caddy", "express-gateway")
_NEIGHBOURS_WITH_POLICIES = {
    "nginx limit-and-log": "nginx: rate limit, access log only",
    "envoy all": "envoy",
}
# A bar that is so many times longer than the next is cut off, or the others could not be told apart.
_TOO_LONG = 2.5


@frozen
class Bar:
    """``cost`` is CPU microseconds per request."""

    label: str
    cost: float
    ours: bool


@frozen
class Line:
    """Rates in requests a second, ascending, and milliseconds."""

    label: str
    colour: str
    rates: Sequence[float]
    p50: Sequence[float]
    p95: Sequence[float]


def groups(whole: Mapping[str, Any], gateway: str) -> list[tuple[str, list[Bar]]]:
    """Bare and with policies, the cheapest first; without what was not measured."""
    costs = {one["contestant"]: one["cost"] for one in whole["compare"]["medians"]}
    bare = {name: name for name in _NEIGHBOURS_BARE} | {gateway: gateway}
    policies = {
        **_NEIGHBOURS_WITH_POLICIES,
        f"{gateway} {ALL.name}": gateway,
        f"{gateway} {ALL_REDIS.name}": f"{gateway}, limits in Redis",
    }
    return [(title, _bars(costs, labels, gateway)) for title, labels in (("bare", bare), ("every policy on", policies))]


def _bars(costs: Mapping[str, float], labels: Mapping[str, str], gateway: str) -> list[Bar]:
    found = [Bar(label, costs[name], name.split()[0] == gateway) for name, label in labels.items() if name in costs]
    return sorted(found, key=lambda bar: bar.cost)


def axis_end(costs: Sequence[float]) -> float:
    """Where the axis of the bars ends: behind the longest, or behind the next if that one is far too long."""
    longest = sorted(costs)[-2:]
    end = longest[0] if len(longest) == 2 and longest[1] > _TOO_LONG * longest[0] else longest[-1]
    return end * 1.18


def lines(whole: Mapping[str, Any]) -> list[Line]:
    """One for each program; nginx was measured at the rates of every gateway."""
    points: dict[str, list[Mapping[str, Any]]] = {}
    for point in whole["latency"]["points"]:
        points.setdefault(point["contestant"], []).append(point)
    found = []
    for name, own in points.items():
        own.sort(key=lambda point: point["rate"])
        every = name.endswith(f" {ALL.name}")
        colour = THEIRS if name == "nginx" else OURS if every else OURS_BARE
        how = "" if name == "nginx" else ", every policy on" if every else ", bare"
        label = name.removesuffix(f" {ALL.name}") + how
        values = [[point[key] for point in own] for key in ("rate", "p50", "p95")]
        found.append(Line(label, colour, *values))
    return found


def gateway_name(whole: Mapping[str, Any]) -> str:
    """The gateway's: the program that was measured with every policy on, and is no neighbour."""
    for one in whole["compare"]["medians"]:
        program, _, scenario = one["contestant"].partition(" ")
        if scenario in (ALL.name, ALL_REDIS.name) and one["contestant"] not in _NEIGHBOURS_WITH_POLICIES:
            return str(program)
    return "apigw"


def draw(whole: Mapping[str, Any], file: Path) -> None:
    """What ``--json`` has written, into ``file``. Raises ``LookupError`` if there is nothing to draw, or draw with."""
    has_costs = bool(whole.get("compare", {}).get("medians"))
    has_latencies = bool(whole.get("latency", {}).get("points"))
    if not (has_costs or has_latencies):
        raise LookupError("neither costs nor latencies were measured")
    if not find_spec("matplotlib"):
        raise LookupError("matplotlib is not installed")
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = import_module("matplotlib.pyplot")
    style = {"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
    with matplotlib.rc_context(style):
        heights = [4.6] * has_costs + [4.0] * has_latencies
        figure = pyplot.figure(figsize=(8.5, sum(heights)), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.12, w_pad=0.12)
        parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
        panels = [part.subplots() for part in parts.flat]
        if has_costs:
            _draw_costs(panels.pop(0), groups(whole, gateway_name(whole)))
        if has_latencies:
            _draw_latencies(panels.pop(0), lines(whole))
        figure.savefig(file, dpi=150, format="png")
        pyplot.close(figure)


def _clear(axis: Any, title: str) -> None:
    axis.figure.suptitle(title, x=0.015, ha="left", fontweight="bold", fontsize=12)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(PALE)
    axis.tick_params(length=0)
    axis.set_axisbelow(True)


def _draw_costs(axis: Any, shown: Sequence[tuple[str, Sequence[Bar]]]) -> None:
    _clear(axis, "CPU time per proxied request, µs")
    end = axis_end([bar.cost for _, bars in shown for bar in bars])
    row, ticks = 0.0, []
    for title, bars in shown:
        if not bars:
            continue
        axis.text(0, row, title, fontweight="bold", va="center", ha="left", color=THEIRS)
        row += 0.9
        for bar in bars:
            _draw_bar(axis, row, bar, end)
            ticks.append((row, bar))
            row += 1
        row += 0.5
    axis.set_yticks([at for at, _ in ticks], [bar.label for _, bar in ticks])
    for tick, (_, bar) in zip(axis.get_yticklabels(), ticks, strict=True):
        tick.set_fontweight("bold" if bar.ours else "normal")
    axis.set_ylim(row - 0.6, -0.6)
    axis.set_xlim(0, end)
    axis.set_xticks([])
    axis.spines["bottom"].set_visible(False)


def _draw_bar(axis: Any, row: float, bar: Bar, end: float) -> None:
    cut = bar.cost > end
    length = end * 0.91 if cut else bar.cost
    axis.barh(row, length, height=0.74, color=OURS if bar.ours else THEIRS)
    if cut:
        middle, lean = length * 0.94, end * 0.008
        axis.plot([middle - lean, middle + lean], [row + 0.5, row - 0.5], color="white", linewidth=4)
    text = f"{bar.cost:.0f}" if bar.cost >= 100 else f"{bar.cost:.1f}"
    axis.text(length + end * 0.008, row, text, va="center", fontweight="bold" if bar.ours else "normal")


def _draw_latencies(axis: Any, shown: Sequence[Line]) -> None:
    _clear(axis, "Latency against offered load, ms: p95, and dotted p50")
    axis.set_yscale("log")
    for line in shown:
        axis.plot(line.rates, line.p95, color=line.colour, linewidth=2.2, marker="o", markersize=4)
        axis.plot(line.rates, line.p50, color=line.colour, linewidth=1.2, linestyle=(0, (2, 2)))
        end = (line.rates[-1], line.p95[-1])
        beside = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
        axis.annotate(line.label, end, color=line.colour, fontweight="bold", annotation_clip=False, **beside)
    axis.set_xlim(0, max(line.rates[-1] for line in shown) * 1.18)
    ticker = import_module("matplotlib.ticker")
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(ticker.NullLocator())
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.grid(axis="y", color=PALE)
    axis.set_xlabel("requests offered per second, one core for each program")
