"""One target under atheris: ``guided.py TARGET SEED SECONDS``. What it finds is kept and told as ``hunt`` does it."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # of the extra "hunt"; it has no types

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "contrib")]

with atheris.instrument_imports(include=["apigw"]):
    from fuzz.every import TARGETS

from fuzz.hunt import Finding, report  # noqa: E402  # not to be imported before the program


def main() -> None:
    name, seed, seconds = sys.argv[1:]
    target = TARGETS[name]

    def check(data: bytes) -> None:
        try:
            target.check(data)
        except Exception as error:
            finding = Finding(data)
            finding.__cause__ = error
            report(target, finding)
            raise

    # The second folder of libFuzzer is only read.
    found = ROOT / "run" / "fuzz" / name
    found.mkdir(parents=True, exist_ok=True)
    folders = [str(found), str(ROOT / "tests" / "fuzz" / "corpus" / name)]
    flags = [f"-seed={seed}", f"-max_total_time={seconds}", "-max_len=4096", f"-artifact_prefix={found}/"]
    atheris.Setup([sys.argv[0], *flags, *folders], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
