"""The keys of tracing."""

from __future__ import annotations

from apigw.config.keys import Keys, Rule, choice, item, list_of, map_of, optional_file, share, text
from apigw.policy.tracing.model import Tracing, TracingSection

TRACING: Rule = {
    "otlp": text(
        "The collector: spans go to its `/v1/traces`, by OTLP over HTTP in protobuf. A collector usually listens on "
        "port 4318.",
        "url",
        required=True,
        like="http://127.0.0.1:4318",
    ),
    "sample": share("The share of the traces that begin here that are recorded.", "0%", "100%"),
    "propagate": list_of(
        "The headers that carry a trace: `w3c` (`traceparent`, `tracestate`), `b3` (one header), `b3_multi` "
        "(`X-B3-…`). All are sent; the first that a request has counts. Both of B3 read both.",
        item("trace headers"),
        minlength=1,
    ),
    "trust": choice(
        "Whose traces go on here, and are recorded if they say so: those of `everyone`, or of `trusted_proxies` only.",
        "everyone",
        "trusted_proxies",
    ),
    "service_name": text("The `service.name` of the spans.", "printable"),
    "headers_file": optional_file(
        "Headers that the collector wants, such as a key: a line `Name: value` for each.", "collector headers"
    ),
}

KEYS = (
    Keys(
        (),
        TracingSection,
        {
            "tracing": map_of(
                "Records [traces](tracing.md) of requests.",
                Tracing,
                TRACING,
                nullable=True,
                like='{otlp: "http://…:4318"}',
                meant={
                    **dict.fromkeys(("collector", "endpoint", "exporter", "url"), "otlp: http://HOST:4318"),
                    **dict.fromkeys(("probability", "ratio", "sample_rate", "sampling"), "'sample'"),
                },
            )
        },
    ),
)
