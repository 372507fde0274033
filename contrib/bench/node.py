"""The neighbours from npm: one process each. Their packages are installed once, outside the repository."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bench.programs import HOST, Place, Program

SOURCE = Path(__file__).with_name("npm")
_MANIFESTS = ("package.json", "package-lock.json")


def packages() -> Path:
    """Where the packages that the manifests name are, or will be: another place for other versions."""
    named = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in _MANIFESTS)).hexdigest()[:12]
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "apigw-bench" / named


@cache
def missing() -> str:
    """Why they cannot run, after an attempt to install them; empty if they can. Takes a minute the first time."""
    whole = packages()
    if (whole / "complete").exists():
        return ""
    if shutil.which("npm") is None:
        return "npm is not installed"
    whole.mkdir(parents=True, exist_ok=True)
    for name in _MANIFESTS:
        shutil.copy(SOURCE / name, whole)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=whole, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"npm could not install it: {(done.stderr or done.stdout).strip()[-200:]}"
    (whole / "complete").touch()
    return ""


def version(package: str) -> str:
    """The version that package.json pins."""
    pinned: str = json.loads((SOURCE / "package.json").read_text())["dependencies"][package]
    return f"{package} {pinned}"


def _program(
    name: str, package: str, script: str, files: Callable[[Place], Mapping[str, str]] = lambda _: {}
) -> Program:
    return Program(
        name=name,
        executable="node",
        argv=lambda place: ["node", str(SOURCE / script), str(packages()), str(place.port), str(place.origins[0])],
        files=files,
        version=("node", "-p", f"'{version(package)}, Node ' + process.version"),
        missing=missing,
    )


def gateway_config(place: Place) -> dict[str, Any]:
    """Express Gateway with one API endpoint, and a pipeline that only proxies. JSON is YAML."""
    proxy = [{"action": {"serviceEndpoint": "origin"}}]
    return {
        "http": {"hostname": HOST, "port": place.port},
        "apiEndpoints": {"all": {"host": "*", "paths": "/*"}},
        "serviceEndpoints": {"origin": {"url": f"http://{HOST}:{place.origins[0]}"}},
        "policies": ["proxy"],
        "pipelines": {"all": {"apiEndpoints": ["all"], "policies": [{"proxy": proxy}]}},
    }


def system_config(_: Place) -> dict[str, Any]:
    """What Express Gateway wants to know besides: it uses none of it for a request."""
    return {
        "db": {"redis": {"emulate": True, "namespace": "bench"}},
        "crypto": {"cipherKey": "bench", "algorithm": "aes256", "saltRounds": 10},
        "session": {"secret": "bench", "resave": False, "saveUninitialized": False},
        "accessTokens": {"timeToExpiry": 7_200_000},
        "refreshTokens": {"timeToExpiry": 7_200_000},
        "authorizationCodes": {"timeToExpiry": 300_000},
    }


FASTIFY = _program("fastify-http-proxy", "@fastify/http-proxy", "fastify.js")
EXPRESS_GATEWAY = _program(
    "express-gateway",
    "express-gateway",
    "express-gateway.js",
    lambda place: {
        "gateway.config.json": json.dumps(gateway_config(place), indent=1),
        "system.config.json": json.dumps(system_config(place), indent=1),
    },
)
