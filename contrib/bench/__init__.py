"""The bench: what the gateway costs beside its neighbours, and whether it keeps its promises under load.

Run it as ``python contrib/bench/bench.py``, or ``python -m bench`` from ``contrib``. Linux only: it reads /proc.
"""
