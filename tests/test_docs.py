"""The documentation: links lead somewhere, lists are complete, and what is shown is what happens."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from apigw import errors
from apigw.cli import main as cli
from apigw.config.load import load
from apigw.process.rules import RULES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("contrib/**/*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
EXAMPLE = re.compile(r"^    \$ apigw (.*)\n((?:    (?!\$).*\n)*)", re.MULTILINE)
YAML = re.compile(r"^```yaml\n((?:# etc/(\S+)\n)?.*?)^```$", re.MULTILINE | re.DOTALL)
CLI = (ROOT / "docs/reference/cli.md").read_text()


def leads_somewhere(target: Path, anchor: str) -> bool:
    headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else ()
    anchors = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
    return target.exists() and (not anchor or anchor in anchors)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A reader follows a link to a page that was renamed."""
    for file, anchor in LINK.findall(page.read_text()):
        assert leads_somewhere((page.parent / file).resolve() if file else page, anchor), (file, anchor)


def test_each_alert_names_its_page() -> None:
    """Whom it has woken reads there what to do."""
    rules = (ROOT / "contrib/prometheus/alerts.yml").read_text()
    pages = re.findall(r"^ +page: ([^\s#]+)#?(\S*)$", rules, re.MULTILINE)
    assert len(pages) == rules.count("- alert: ")
    for file, anchor in pages:
        assert leads_somewhere(ROOT / file, anchor), (file, anchor)


@pytest.mark.parametrize(
    ("text", "file"),
    [
        pytest.param(text, file or "gateway.yaml", id=f"{page.stem}-{number}")
        for page in PAGES
        if page.parent.name == "howto"
        for number, (text, file) in enumerate(YAML.findall(page.read_text()), 1)
    ],
)
def test_configurations_are_good(text: str, file: str, tmp_path: Path) -> None:
    """What a reader copies from a guide is loaded without a problem, once the files are there that it names."""
    written = tmp_path / file
    written.parent.mkdir(exist_ok=True)
    written.write_text(text)
    for name in re.findall(r"_file: ([\w/.]+)", text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("0123456789abcdef" * 4)
    load(str(tmp_path), {}, RULES)


def test_every_page_can_be_found() -> None:
    """A page exists, and nobody comes across it."""
    for index in (ROOT / "docs/index.md", ROOT / "docs/decisions/README.md"):
        linked = {(index.parent / file).resolve() for file, _ in LINK.findall(index.read_text())}
        folders = ("reference", "howto", "explanation") if index.name == "index.md" else (".",)
        pages = {page for folder in folders for page in (index.parent / folder).resolve().glob("*.md")}
        assert pages - linked - {index} == set()


def test_every_problem_code_is_documented() -> None:
    """A client meets a code that no page explains, or waits for one that never comes."""
    kinds: list[type[errors.GatewayError]] = [errors.GatewayError, *errors.GatewayError.__subclasses__()]
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", (ROOT / "docs/reference/errors.md").read_text(), re.MULTILINE)
    assert sorted((int(status), code) for status, code in rows) == sorted((kind.status, kind.code) for kind in kinds)


def test_every_command_is_documented() -> None:
    """A command of the script is missing from its page."""
    documented = set(re.findall(r"^### `apigw ([a-z-]+)", CLI, re.MULTILINE))
    listed = set(re.findall(r"^    ([a-z-]+)(?: |$)", cli.parser().format_help(), re.MULTILINE))
    assert documented == listed
    for name in documented:
        with pytest.raises(SystemExit, match="0"):
            cli.main([name, "-h"])


@pytest.mark.parametrize(("arguments", "shown"), EXAMPLE.findall(CLI))
def test_examples(
    arguments: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the page shows is what the command prints, beside `etc` as shipped, and `other`, which differs."""
    shutil.copytree(ROOT / "etc", tmp_path / "etc")
    shutil.copytree(ROOT / "etc", tmp_path / "other")
    users = tmp_path / "other/services/users.yaml"
    users.write_text(users.read_text().replace("timeout: 10s", "timeout: 12s").replace("/echo/*  ", "/api/v2/users"))
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("APIGW_") or name in ("USERS_PORT", "LIVE_PORT"):
            monkeypatch.delenv(name)
    cli.main(shlex.split(arguments))
    out, err = capsys.readouterr()
    assert err + out == "".join(line[4:] + "\n" for line in shown.rstrip("\n").split("\n"))
