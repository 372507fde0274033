"""An API gateway on Twisted."""

from importlib.util import find_spec

__version__ = "0.2.0"


def is_compiled() -> bool:
    """Whether a request's way runs as machine code (see setup.py), and not as the Python that it was made of."""
    spec = find_spec("apigw.proxy.pipeline")
    return spec is not None and not str(spec.origin).endswith(".py")
