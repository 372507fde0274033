"""The bench's wrong credentials: what is sent, and what is promised of the others."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from bench.offered import Offered
from bench.programs import Place
from bench.wrong import KINDS, Kind, _config, _from_addresses, _verdict

from apigw.config.load import load
from apigw.process.rules import RULES


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_has_a_good_configuration_and_credentials_of_its_own(kind: Kind, tmp_path: Path) -> None:
    """No credential is sent twice, so that none is remembered."""
    good = kind.good(3)
    document = _config(kind, good, Place(tmp_path, 8080, (9000, 9001)))
    (tmp_path / "gateway.yaml").write_text(json.dumps(document))
    load(str(tmp_path), {}, RULES)
    wrong = list(islice(kind.wrong(), 50))
    assert len({*wrong, *good}) == 53
    assert len(set(_from_addresses(wrong, 10))) == 50


def offered(p99: float, failed: int = 0) -> Offered:
    return Offered(500, 100, failed, 1.0, 0.0, array("d", [p99 / 1e3] * 100))


@pytest.mark.parametrize(
    ("later", "failed", "statuses", "served", "kept"),
    [
        (40, 0, {"401": 9, "503": 1}, {"200": 2}, True),
        (60, 0, {"401": 10}, {"200": 2}, False),
        (40, 1, {"401": 10}, {"200": 2}, False),
        (40, 0, {"401": 9, "200": 1}, {"200": 2}, False),
        (40, 0, {"401": 10}, {"200": 1, "503": 1}, False),
        (40, 0, {"401": 10}, {}, False),
        (40, 0, {}, {"200": 2}, False),
    ],
)
def test_what_is_promised(
    later: int, failed: int, statuses: dict[str, int], served: dict[str, int], kept: bool
) -> None:
    """Nobody else is late or fails, no wrong one gets in, and every right one does."""
    verdict = _verdict("", offered(5), offered(5 + later, failed), Counter(statuses), Counter(served), 0.1)
    assert verdict.kept == kept
