"""What a plugin keeps or shows for longer than one exchange harms nobody."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from apigw.config.errors import ConfigError


@pytest.mark.parametrize("openmetrics", [False, True])
async def test_a_label_that_is_no_unicode(apigw: Any, openmetrics: bool) -> None:
    """Bytes of a client are shown escaped; a function that raises hides its own metric, and is in the log."""
    gateway = apigw(["./metered.py:Metered"])
    for tenant in ("acme", "%FF%FE"):
        assert (await gateway.request("GET", f"/?tenant={tenant}")).status == 200
    _, text = gateway.metrics.render(openmetrics)
    assert b'gateway_plugin_metered_tenants_total{tenant="acme"} 1.0' in text
    assert b'gateway_plugin_metered_tenants_total{tenant="\\\\udcff\\\\udcfe"} 1.0' in text
    assert b"gateway_plugin_metered_broken" not in text
    assert "the plugin metered failed in the metric broken" in gateway.log


@pytest.mark.parametrize("doc", ["5", "'\\ud800'"])
def test_what_a_metric_is_can_be_shown(apigw: Any, tmp_path: Path, doc: str) -> None:
    """It is text, or the configuration is refused."""
    (tmp_path / "p.py").write_text(
        "class P:\n    name = 'p'\n    schema = {}\n    def on_end(self, view): pass\n"
        f"    def prepare(self, config, context): context.gauge('a', {doc})\n"
    )
    with pytest.raises(ConfigError, match=r"what the metric a is, is text|codec can't encode"):
        apigw({"p": {"policy": f"{tmp_path}/p.py:P"}})


async def test_an_error_that_is_raised_again_and_again(apigw: Any) -> None:
    """It keeps nothing of the exchanges before."""
    gateway = apigw(["./metered.py:Once"])
    for path, body, status in (("/refused", b"", 403), ("/forward", b"", 403), ("/", b"x", 403), ("/answer", b"", 500)):
        for _ in range(10):
            assert (await gateway.request("POST", path, body=body)).status == status
        module: Any = next(held for name, held in sys.modules.items() if name.startswith("apigw_plugin_metered"))
        for error in (module.Once.refusal, module.Once.mistake):
            assert len(list(traceback.walk_tb(error.__traceback__))) < 10, path
