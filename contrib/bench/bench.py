"""``python contrib/bench/bench.py [full|compare|latency|http2|sweep|endurance|…] …`` from any directory."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    # A script's own directory comes first on the path, and in it ``profile`` would hide the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    runpy.run_module("bench", run_name="__main__", alter_sys=True)
