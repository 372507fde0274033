"""Writes the dashboard as TypeScript that claims to have Grafana's own types, for ``tsc`` to judge: ``npm run check``.

It is claimed in three parts, since Grafana's type of a panel leaves options open: the dashboard as a whole, each
panel's options, and its ``custom`` field settings, by the types of its kind.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).resolve().parents[1] / "gateway.json"

KINDS = {
    "timeseries": "TimeSeries",
    "barchart": "BarChart",
    "bargauge": "BarGauge",
    "stat": "Stat",
    "state-timeline": "StateTimeline",
}
WITHOUT_FIELDS = ("stat", "bargauge")
"""Kinds whose fields have no settings of their own."""

PLAIN = """
// Grafana's types have enums where its JSON has strings and numbers.
type Plain<T> = 0 extends 1 & T ? T
  : T extends string ? `${T}`
  : T extends number ? number
  : T extends (infer U)[] ? Plain<U>[]
  : T extends object ? { [K in keyof T]: Plain<T[K]> }
  : T;
"""


def typescript(dashboard: dict[str, Any]) -> str:
    lines = ['import type { Dashboard } from "@grafana/schema";']
    for kind, name in KINDS.items():
        folder = kind.replace("-", "")
        module = f"@grafana/schema/dist/esm/raw/composable/{folder}/panelcfg/x/{name}PanelCfg_types.gen"
        lines.append(f'import type * as {name} from "{module}";')
    lines += [PLAIN, f"({json.dumps(dashboard)}) satisfies Plain<Dashboard>;"]
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        name = KINDS[panel["type"]]
        lines.append(f"// {panel['title']}")
        lines.append(f"({json.dumps(panel.get('options', {}))}) satisfies Plain<Partial<{name}.Options>>;")
        custom = panel["fieldConfig"]["defaults"].get("custom")
        if custom is not None:
            fields = "{ none?: never }" if panel["type"] in WITHOUT_FIELDS else f"Plain<{name}.FieldConfig>"
            lines.append(f"({json.dumps(custom)}) satisfies {fields};")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(typescript(json.loads(DASHBOARD.read_text())), end="")
