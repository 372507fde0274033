"""What is asked of the C library at the start."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from apigw.process import garbage


@pytest.mark.parametrize("library", [ctypes.CDLL(None), object()], ids=["this one", "one without mallopt"])
def test_the_c_library_may_be_any(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    """Where it has no such setting, nothing happens."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    garbage.keep_freed()
