"""What tracing costs a request, recorded and not, besides the sending of spans.

``python contrib/bench/tracing_cost.py`` times, in this process, the very calls that the exchanges of a route make, and
one header more or less on the way to the service. nginx is measured beside them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    # A script's own directory comes first on the path, and in it ``profile`` would hide the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from prometheus_client import CollectorRegistry

from apigw.contract.exchange import AtEnd, Exchange
from apigw.ops.metrics import Metrics
from apigw.ops.tracing.batches import Batches
from apigw.ops.tracing.propagation import Propagation
from apigw.ops.tracing.sampling import Sampler
from apigw.ops.tracing.spans import ClientSpans, Hosts, ServerSpans
from apigw.policy.tracing.stage import BeginTrace, EndTrace, Epoch
from bench.ops_cost import USUAL_N, best, exchange, microseconds, nginx

NO_ENDS: tuple[AtEnd, ...] = ()
MOST = {"not recorded": 0.02, "recorded": 0.2}
"""n that each may cost."""


class Traced:
    """The stage and the end of one route, and an exchange of it."""

    def __init__(self, sample: float, one: Exchange) -> None:
        self._one = one
        self.batches = Batches(self._sent, lambda spans: None)
        epoch = Epoch(time.monotonic, time.time)
        end = EndTrace(ServerSpans(one.route.pattern, Hosts()), ClientSpans(), self.batches, epoch)
        self._begin = BeginTrace(Propagation(["w3c"]), Sampler(sample), False, end)

    def _sent(self) -> None:
        self.batches.take()

    def run(self) -> None:
        """All that happens to one exchange: its stage, its try, its end."""
        one = self._one
        one.trace, one.sent, one.at_end = None, (), NO_ENDS
        self._begin.run(one)
        trace = one.trace
        if trace is not None:
            trace.begin("http://127.0.0.1:9001", "users", 0.0, [])
            trace.end(0.001, b"HTTP/1.1")
            trace.answered(200)
        for each in one.at_end:
            each.run(one)


def measured() -> dict[str, float]:
    """Microseconds by whether the request is recorded."""
    one = exchange(Metrics(CollectorRegistry(), "bench"))
    one.request.stream.secure = False
    nothing = best(lambda: microseconds(lambda: None))
    shares = {"not recorded": 0.0, "recorded": 1.0}
    return {name: best(lambda: microseconds(Traced(share, one).run)) - nothing for name, share in shares.items()}  # noqa: B023


def main() -> int:
    """0 when the promise is kept, 1 when it is not."""
    costs = measured()
    unit = nginx()
    if unit is None:
        print(f"nginx or wrk is not installed: n is taken to be {USUAL_N} µs")
        unit = USUAL_N
    kept = True
    for name, cost in costs.items():
        kept = kept and cost <= MOST[name] * unit
        print(f"{name:<12} {cost:6.2f} µs  {cost / unit:.3f} n; at most {MOST[name]} n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
