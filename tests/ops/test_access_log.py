"""The access log holds a line for every exchange, whatever a client sends and whatever the disk does."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from apigw.ops import access_line
from apigw.ops.access_line import LONGEST_NAME, MAX_PAIRS, MAX_TARGET, Entry, of_format, without_secrets
from apigw.ops.access_log import BATCH, DELAY, QUIET, STOP_TIMEOUT, AccessLog

FIELDS: dict[str, Any] = {
    "time": 0.0,
    "request_id": "7f1d",
    "client": "192.0.2.7",
    "method": b"GET",
    "target": b"/api/v1/users/42?page=2",
    "route": "/api/v1/users/:id",
    "status": 200,
    "made_by": "upstream",
    "code": None,
    "bytes_in": 0,
    "bytes_out": 1234,
    "duration": 0.0123456,
    "upstream": "10.0.0.5:9001",
    "upstream_duration": 0.011,
    "principal": "main:alice",
    "protocol": "HTTP/1.1",
    "referer": b"https://app.example.com/?token=abc",
    "user_agent": b"curl/8",
}


def an_entry(**changes: Any) -> Entry:
    return Entry(**{**FIELDS, **changes})


ENTRY = an_entry()

NOTHING_FOUND: dict[str, Any] = {
    "route": None,
    "status": 404,
    "made_by": "gateway",
    "code": "not_found",
    "upstream": None,
    "upstream_duration": None,
    "principal": None,
}
REFUSED = an_entry(**NOTHING_FOUND)

COMBINED = re.compile(
    rb'(?P<client>\S+) - (?P<principal>\S+) \[(?P<time>[^]]+)\] "(?P<request>[^"]*)" '
    rb'(?P<status>\d{3}) (?P<bytes_out>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)" '
    rb'(?P<request_id>\S+) "(?P<route>[^"]*)" (?P<made_by>\S+) (?P<code>\S+) (?P<bytes_in>\d+) '
    rb"(?P<duration>\S+) (?P<upstream>\S+) (?P<upstream_duration>\S+)\n"
)


class Loop(Clock):
    """A clock whose calls from threads are made when the test waits for them."""

    def __init__(self) -> None:
        super().__init__()
        self.from_threads: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def call_from_thread(self, call: Callable[..., object], *arguments: object) -> None:
        self.from_threads.put(lambda: call(*arguments))

    def wait_for(self, done: Callable[[], object]) -> None:
        while not done():
            self.from_threads.get(timeout=30)()

    def finish(self, waiting: Deferred[None]) -> None:
        fired: list[None] = []
        waiting.addCallback(fired.append)
        self.wait_for(lambda: fired)


class Logged:
    def __init__(self, file: object, format: str = "json", max_pending: int = 1 << 20) -> None:
        self.loop = Loop()
        self.loop.advance(1_700_000_000.25)
        self.reports: list[str] = []
        self.log = AccessLog(str(file), format, self.loop, self.loop.call_from_thread, self.reports.append, max_pending)
        self.log.start()

    def stop(self) -> None:
        self.loop.finish(self.log.stop())


def ids(file: Path) -> list[str]:
    return [json.loads(line)["request_id"] for line in file.read_bytes().splitlines()]


def numbered(first: int, last: int) -> Iterator[Entry]:
    return (an_entry(request_id=str(number)) for number in range(first, last))


def as_json(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(of_format("json").line("2026-01-02T03:04:05", 6, entry))
    return found


def as_combined(entry: Entry) -> dict[str, bytes]:
    line = of_format("combined").line("02/Jan/2026:03:04:05 +0000", 6, entry)
    match = COMBINED.fullmatch(line)
    assert match, line
    return match.groupdict()


# What a line says


def test_json_says_everything() -> None:
    """Whoever looks for a request at night finds who answered, how long it took, and whose fault it was."""
    assert as_json(ENTRY) == {
        "time": "2026-01-02T03:04:05.006Z",
        "level": "info",
        "request_id": "7f1d",
        "client": "192.0.2.7",
        "method": "GET",
        "path": "/api/v1/users/42?page=2",
        "route": "/api/v1/users/:id",
        "status": 200,
        "made_by": "upstream",
        "code": None,
        "bytes_in": 0,
        "bytes_out": 1234,
        "duration_ms": 12.345,
        "upstream": "10.0.0.5:9001",
        "upstream_ms": 11.0,
        "principal": "main:alice",
        "protocol": "HTTP/1.1",
    }
    refused = as_json(REFUSED)
    assert (refused["made_by"], refused["code"]) == ("gateway", "not_found")
    assert [refused[name] for name in ("route", "upstream", "upstream_ms", "principal")] == [None] * 4


def test_combined_is_what_log_readers_know() -> None:
    """GoAccess and its like read the nine fields; the rest stands behind them."""
    line = of_format("combined").line("02/Jan/2026:03:04:05 +0000", 6, ENTRY)
    assert line == (
        b'192.0.2.7 - main:alice [02/Jan/2026:03:04:05 +0000] "GET /api/v1/users/42?page=2 HTTP/1.1" 200 1234 '
        b'"https://app.example.com/?token=***" "curl/8" '
        b'7f1d "/api/v1/users/:id" upstream - 0 12.345 10.0.0.5:9001 11.0\n'
    )
    refused = as_combined(an_entry(**NOTHING_FOUND, referer=None, user_agent=None))
    assert {refused[name] for name in ("principal", "referer", "agent", "route", "upstream_duration")} == {b"-"}


def test_fields_can_be_chosen() -> None:
    """A line has the fields that were chosen, in their order, and null for one that does not apply."""
    chosen = of_format("json", ["status", "user_agent", "host", "reason", "referer"])
    assert chosen.quotes_headers
    lines = [
        chosen.line("", 0, an_entry(host=b"a.test")),
        chosen.line("", 0, an_entry(reason="No token.", status=502, user_agent=b'x"\n\xff')),
    ]
    assert lines[0] == (
        b'{"status":200,"user_agent":"curl/8","host":"a.test","reason":null,"referer":"https://app.example.com/?token=***"}\n'
    )
    assert json.loads(lines[1]) | {"referer": 0} == {
        "status": 502,
        "user_agent": "x\\x22\\x0A\\xFF",
        "host": None,
        "reason": "No token.",
        "referer": 0,
    }
    assert not of_format("json", ["status"]).quotes_headers


def test_a_fault_of_the_server_is_a_warning() -> None:
    """Levels tell what somebody should look at."""
    assert [as_json(an_entry(status=status))["level"] for status in (200, 404, 499, 500, 503)] == [
        *["info"] * 3,
        *["warn"] * 2,
    ]


def test_no_header_is_in_the_json() -> None:
    """What a client or a page puts into headers does not get into the JSON log."""
    assert b"app.example.com" not in of_format("json").line("", 0, ENTRY)
    assert b"curl" not in of_format("json").line("", 0, ENTRY)


def test_times_are_utc_with_milliseconds(tmp_path: Path) -> None:
    """Lines of machines in different zones can be sorted together."""
    logged = Logged(tmp_path / "log")
    began = 1_700_000_000.25
    for after in (0, 0.0625, 59.0625):
        logged.log.log(an_entry(time=began + after))
    logged.stop()
    times = [json.loads(line)["time"] for line in (tmp_path / "log").read_text().splitlines()]
    assert times == ["2023-11-14T22:13:20.250Z", "2023-11-14T22:13:20.312Z", "2023-11-14T22:14:19.312Z"]
    combined = Logged(tmp_path / "combined", "combined")
    combined.log.log(an_entry(time=began))
    combined.stop()
    assert b"[14/Nov/2023:22:13:20 +0000]" in (tmp_path / "combined").read_bytes()


# Secrets


SECRETS = """
token access_token ACCESS_TOKEN id_token refresh_token accessToken api_key apikey api-key key password passwd secret
client_secret code sig signature X-Amz-Signature X-Amz-Security-Token user[password] user%5Bpassword%5D keys[key][]
%74oken access%5ftoken my%20token my+token jwt code_verifier sid SAMLResponse
id_token_hint logout_token_hint bearer state assertion client_assertion nonce
device_code user_code ticket refresh SAMLart PHPSESSID
"""


@pytest.mark.parametrize("name", SECRETS.split())
def test_values_of_secrets_are_not_shown(name: str) -> None:
    """A token that somebody put into a URL is not in the log, however its name is written."""
    raw = name.encode()
    assert without_secrets(b"/p?" + raw + b"=s3cr3t") == b"/p?" + raw + b"=***"
    assert without_secrets(b"/p?a=1&" + raw + b"=s3;cr=3t&b=2") == b"/p?a=1&" + raw + b"=***&b=2"
    assert without_secrets(b"/p?a=1;" + raw + b"=s3cr3t=?/") == b"/p?a=1;" + raw + b"=***"


@pytest.mark.parametrize(
    "target",
    [
        b"/p?page=2&sort=name",
        b"/p?q=token",
        b"/p?q=token=1",
        b"/p?next=/a?page=2%26sort%3Dname",
        b"/p?next=https%3A%2F%2Fa.example%2Ftoken%3Fpage%3D2",
        b"/p?mail=a@b.example&u=http://a.example/~b@c:d",
        b"/p?x=%3F%23%26%40&y=?#@",
        b"/token/x",
        b"/p?postcode=1&tokens=2&keyword=3",
        b"/p?&&=&a",
        b"/p?",
        b"*",
        b"",
    ],
)
def test_other_values_are_as_sent(target: bytes) -> None:
    """What is not a secret is there to be searched for."""
    assert without_secrets(target) == target


def test_a_session_in_a_path_is_not_shown() -> None:
    """As servers of Java write it, up to the end of its parameter."""
    assert without_secrets(b"/a;jsessionid=s3cr3t/b;v=1?c=d") == b"/a;jsessionid=***/b;v=1?c=d"
    assert without_secrets(b"/a;v=1;JSESSIONID=s3cr3t.node") == b"/a;v=1;JSESSIONID=***"
    assert without_secrets(b"/a;sessionid=s3cr3t?token=b") == b"/a;sessionid=***?token=***"
    assert without_secrets(b"/a;v=jsessionid;id=1") == b"/a;v=jsessionid;id=1"


def test_a_user_in_a_url_is_not_shown() -> None:
    """Neither an absolute target nor a referer carries somebody's password into the log."""
    assert without_secrets(b"http://user:pass@host/p?a=b@c") == b"http://***@host/p?a=b@c"
    assert without_secrets(b"http://host/p?a=b@c") == b"http://host/p?a=b@c"
    assert without_secrets(b"user:pass@host:443") == b"***@host:443"


@pytest.mark.parametrize(
    "value",
    [
        b"/reset?token=s3cr3t",
        b"https%3A%2F%2Fa.example%2Fcb%3fx%3D1%26code%3Ds3cr3t",
        b"https%3A%2F%2Fa.example%2F%23access_token%3Ds3cr3t",
        b"https%253A%252F%252Fa.example%252F%253Ftoken%253Ds3cr3t",
        b"https://user:s3cr3t@a.example/",
        b"https%3A%2F%2Fuser%3As3cr3t%40a.example%2F",
        b"/p?" + b"a=?" * (MAX_PAIRS + 1),
    ],
)
def test_a_secret_of_a_url_in_a_query_is_not_shown(value: bytes) -> None:
    """A value that is a URL with a secret, as where to go after a login, is a secret as a whole."""
    assert without_secrets(b"/login?a=1&next=" + value + b"&b=2") == b"/login?a=1&next=***&b=2"


def test_names_are_remembered_up_to_a_length() -> None:
    """Clients cannot have the gateway keep long ones. Whether they are those of secrets is known all the same."""
    before = access_line._known.cache_info().currsize
    name = b"a" * LONGEST_NAME + b"token"
    assert without_secrets(b"/p?" + name + b"=s3cr3t") == b"/p?" + name + b"=***"
    assert access_line._known.cache_info().currsize == before


def test_a_query_of_very_many_pairs_is_not_shown() -> None:
    """A query made to be slow to read is left out instead."""
    assert without_secrets(b"/p?" + b"a=1&" * MAX_PAIRS) == b"/p?" + b"a=1&" * MAX_PAIRS
    assert without_secrets(b"/p?" + b"a=1&" * (MAX_PAIRS + 1)) == b"/p?***"


def test_a_secret_that_is_cut_off_stays_one() -> None:
    """A target longer than what is shown does not show the beginning of its token."""
    target = b"/" + b"x" * (MAX_TARGET - 16) + b"?token=" + b"s" * 100
    assert "s" not in as_json(an_entry(target=target))["path"]


# Hostile bytes

hostile = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b'" 200 0 "-" "-"\n127.0.0.1 - admin', b"\x1b[2J\x1b]0;x\x07", b"\xff\xfe", b"\x00", b"\r\n", b"\\", b'\\"',
         b'","status":500,"x":"', b"\x7f\x80\x9b", "\u2028\u202e\u0085".encode(), b"?token=\n\x1b"]
    ),
)  # fmt: skip
hostile_text = st.text(st.characters(), max_size=30)  # with lone surrogates, as YAML and broken decoding make them
hostile_entries = st.builds(
    Entry,
    time=st.floats(0, 4e9),
    request_id=hostile_text,
    client=hostile_text,
    method=hostile,
    target=hostile,
    route=st.none() | hostile_text,
    status=st.integers(100, 599),
    made_by=st.sampled_from(["gateway", "upstream"]),
    code=st.none() | hostile_text,
    bytes_in=st.integers(0, 2**63 - 1),
    bytes_out=st.integers(0, 2**63 - 1),
    duration=st.floats(0, 1e6),
    upstream=st.none() | hostile_text,
    upstream_duration=st.none() | st.floats(0, 1e6),
    principal=st.none() | hostile_text,
    protocol=st.sampled_from(["HTTP/1.0", "HTTP/1.1", "HTTP/2"]),
    referer=st.none() | hostile,
    user_agent=st.none() | hostile,
)


@given(hostile_entries)
def test_nothing_breaks_the_json(entry: Entry) -> None:
    """Every line is one JSON object with the status that it had, and no field acts on a terminal."""
    line = of_format("json").line("2026-01-02T03:04:05", 6, entry)
    assert line.count(b"\n") == 1
    found = json.loads(line)
    assert found["status"] == entry.status
    for name in ("request_id", "client", "method", "path", "principal"):
        assert found[name] is None or found[name].isprintable()


@given(hostile_entries)
def test_nothing_breaks_the_combined_line(entry: Entry) -> None:
    """Every line is printable ASCII and has its fields where they belong."""
    line = of_format("combined").line("02/Jan/2026:03:04:05 +0000", 6, entry)
    assert re.fullmatch(rb"[\x20-\x7e]*\n", line)
    found = as_combined(entry)
    assert found["status"] == b"%d" % entry.status
    assert found["made_by"] == entry.made_by.encode()


def test_hostile_bytes_are_written_as_nginx_does() -> None:
    """What was sent can still be read off the line."""
    entry = an_entry(target=b'/\x1b[31m"\xc3\xa9\\', principal="main:a b\u00e9", user_agent=b'"\n\x7f')
    found = as_combined(entry)
    assert found["request"] == rb"GET /\x1B[31m\x22\xC3\xA9\x5C HTTP/1.1"
    assert found["principal"] == rb"main:a\x20b\xC3\xA9"
    assert found["agent"] == rb"\x22\x0A\x7F"
    assert as_json(entry)["path"] == r"/\x1B[31m\x22\xC3\xA9\x5C"
    assert as_json(entry)["principal"] == "main:a b\u00e9"


def test_long_fields_are_cut() -> None:
    """A client cannot fill the disk faster than it sends."""
    entry = an_entry(target=b"/" + b"a" * 30_000, referer=b"r" * 30_000, user_agent=b"u" * 30_000)
    assert len(as_json(entry)["path"]) == MAX_TARGET
    found = as_combined(entry)
    assert len(found["request"]) < MAX_TARGET + 20
    assert len(found["referer"]) == len(found["agent"]) == 1024


# How lines get into the file


def test_lines_are_written_within_the_delay(tmp_path: Path) -> None:
    """Whoever follows the log with tail sees a request a moment after it ended."""
    file = tmp_path / "log"
    logged = Logged(file)
    logged.log.log(ENTRY)
    assert file.read_bytes() == b""
    logged.loop.advance(DELAY)
    logged.stop()
    assert ids(file) == ["7f1d"]
    assert not logged.loop.getDelayedCalls()


def test_a_full_batch_does_not_wait(tmp_path: Path) -> None:
    """Under load, lines do not pile up in memory until the delay is over."""
    file = tmp_path / "log"
    logged = Logged(file)
    size = len(of_format("json").line("2026-01-02T03:04:05", 6, ENTRY))
    for entry in numbered(0, BATCH // size * 4):
        logged.log.log(entry)
    assert logged.log._size < BATCH
    assert logged.log._handed > 2 * BATCH
    logged.stop()
    assert logged.log.dropped == 0


def test_a_clean_stop_loses_nothing(tmp_path: Path) -> None:
    """After SIGTERM the log has every request, in order."""
    file = tmp_path / "log"
    file.write_text('{"request_id":"before"}\n')
    logged = Logged(file, max_pending=1 << 30)
    for entry in numbered(0, 5000):
        logged.log.log(entry)
    logged.stop()
    assert ids(file) == ["before", *map(str, range(5000))]
    assert logged.reports == []
    assert not logged.loop.getDelayedCalls()


def test_the_file_is_not_for_everybody(tmp_path: Path) -> None:
    """Addresses and paths of callers are not readable by every user of the machine."""
    Logged(tmp_path / "log").stop()
    assert (tmp_path / "log").stat().st_mode & 0o007 == 0


def test_logrotate_loses_nothing(tmp_path: Path) -> None:
    """What was logged before the signal is in the renamed file, what comes after in the new one."""
    file, old = tmp_path / "log", tmp_path / "log.1"
    logged = Logged(file)
    for entry in numbered(0, 100):
        logged.log.log(entry)
    file.rename(old)
    logged.log.flush()
    for entry in numbered(100, 150):
        logged.log.log(entry)
    logged.log.reopen()
    for entry in numbered(150, 200):
        logged.log.log(entry)
    logged.stop()
    assert ids(old) == list(map(str, range(150)))
    assert ids(file) == list(map(str, range(150, 200)))


def test_a_rotation_that_fails_goes_on_in_the_old_file(tmp_path: Path) -> None:
    """If the directory is gone when the signal comes, lines still go somewhere, and the operator is told."""
    directory, moved = tmp_path / "logs", tmp_path / "moved"
    directory.mkdir()
    logged = Logged(directory / "log")
    directory.rename(moved)
    logged.log.reopen()
    logged.log.log(ENTRY)
    logged.stop()
    assert ids(moved / "log") == ["7f1d"]
    assert len(logged.reports) == 1
    assert "No such file" in logged.reports[0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_is_said_once_and_stops_nothing() -> None:
    """Traffic goes on, the daemon's log has one sentence and no flood, and the number of lost lines is known."""
    logged = Logged("/dev/full", max_pending=1 << 30)
    for entry in numbered(0, 3000):
        logged.log.log(entry)
    logged.log.flush()
    logged.loop.wait_for(lambda: logged.log.dropped == 3000)
    assert len(logged.reports) == 1
    assert "No space left" in logged.reports[0]
    logged.stop()
    assert logged.reports[1:] == ["access log: 3000 lines were lost"]


def test_when_the_disk_has_room_again_that_is_said_too(tmp_path: Path) -> None:
    """The operator who made room sees that the log is whole again, and how much is missing."""
    file = tmp_path / "log"
    file.symlink_to("/dev/full")
    logged = Logged(file)
    logged.log.log(ENTRY)
    logged.log.flush()
    logged.loop.wait_for(lambda: logged.log.dropped == 1)
    file.unlink()
    logged.log.reopen()
    logged.loop.advance(QUIET)
    logged.log.log(ENTRY)
    logged.stop()
    assert logged.reports[1:] == ["access log: whole again, 1 lines were lost"]
    assert ids(file) == ["7f1d"]


@contextmanager
def limited_size(limit: int) -> Iterator[None]:
    """Files cannot grow beyond ``limit``: as on a disk that fills up in the middle of a line."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_cut_by_a_full_disk_does_not_spoil_the_next(tmp_path: Path) -> None:
    """Of the lines that a full disk cut off, one is a torso; every line after it is whole."""
    file = tmp_path / "log"
    logged = Logged(file)
    with limited_size(1000):
        for entry in numbered(0, 10):
            logged.log.log(entry)
        logged.log.flush()
        logged.loop.wait_for(lambda: logged.log.dropped)
        whole = 10 - logged.log.dropped
        logged.log.log(ENTRY)
        logged.log.flush()
        logged.loop.wait_for(lambda: logged.log.dropped > 10 - whole)
    for entry in numbered(10, 20):
        logged.log.log(entry)
    logged.stop()
    lines = file.read_bytes().splitlines()
    assert logged.log.dropped == 10 - whole + 1
    assert 0 < whole < 10
    assert [json.loads(line)["request_id"] for line in lines[:whole]] == list(map(str, range(whole)))
    with pytest.raises(json.JSONDecodeError):
        json.loads(lines[whole])
    assert [json.loads(line)["request_id"] for line in lines[whole + 1 :]] == list(map(str, range(10, 20)))


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A named pipe and its reading end."""
    file = tmp_path / "pipe"
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    yield file, reader
    os.close(reader)


def test_a_reader_that_goes_away_stops_nothing(tmp_path: Path) -> None:
    """The collector at the other end of the pipe dies: one sentence, and the gateway serves on."""
    file = tmp_path / "pipe"
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    logged = Logged(file)
    os.close(reader)
    for _ in range(3):
        logged.log.log(ENTRY)
        logged.log.flush()
    logged.loop.wait_for(lambda: logged.log.dropped == 3)
    logged.stop()
    assert "Broken pipe" in logged.reports[0]
    assert len(logged.reports) == 2


def test_a_reader_that_does_not_read_costs_no_more_than_the_limit(pipe: tuple[Path, int]) -> None:
    """Memory stays bounded, what does not fit is counted, and what was accepted arrives whole once somebody reads."""
    file, reader = pipe
    limit = 500_000
    logged = Logged(file, max_pending=limit)
    for entry in numbered(0, 10_000):
        logged.log.log(entry)
    logged.log.flush()
    dropped = logged.log.dropped
    assert 0 < dropped < 10_000
    assert logged.log._handed <= limit + BATCH
    assert logged.reports == ["access log: what reads it is too slow; lines are being lost"]

    stopping = logged.log.stop()
    received = b""
    while received.count(b"\n") < 10_000 - dropped:
        received += os.read(reader, 1 << 20)
    logged.loop.finish(stopping)
    found = [int(json.loads(line)["request_id"]) for line in received.splitlines()]
    assert found == sorted(set(found))


def test_a_stop_does_not_wait_for_ever(pipe: tuple[Path, int]) -> None:
    """A collector that hangs does not keep the daemon from ending, and the loss is told."""
    file, _ = pipe
    logged = Logged(file)
    for entry in numbered(0, 1000):
        logged.log.log(entry)
    stopped: list[None] = []
    logged.log.stop().addCallback(stopped.append)
    logged.loop.advance(STOP_TIMEOUT - 0.1)
    assert stopped == []
    logged.loop.advance(0.2)
    assert stopped == [None]
    assert "could not be written before the end" in logged.reports[-1]


def test_several_gateways_share_a_pipe(pipe: tuple[Path, int]) -> None:
    """Lines of several processes in one pipe are not cut by each other's, also when the pipe is full."""
    file, reader = pipe
    logs = [Logged(file, max_pending=1 << 30) for _ in range(3)]
    for logged in logs:
        for entry in numbered(0, 1000):
            logged.log.log(entry)
    stopping = [logged.log.stop() for logged in logs]
    received = b""
    while received.count(b"\n") < 3000:
        received += os.read(reader, 1 << 20)
    for logged, stopped in zip(logs, stopping, strict=True):
        logged.loop.finish(stopped)
    assert sorted(int(json.loads(line)["request_id"]) for line in received.splitlines()) == sorted([*range(1000)] * 3)


PROGRAM = f"""
import os, sys
from twisted.internet import reactor, task
from apigw.ops.access_log import AccessLog
from apigw.ops.access_line import Entry
if sys.argv[1] == "nonblocking":
    os.set_blocking(1, False)
log = AccessLog("-", "json", reactor, reactor.callFromThread, lambda sentence: print(sentence, file=sys.stderr))
log.start()
for _ in range(1000):
    log.log(Entry(**{FIELDS!r}))
log.reopen()
task.react(lambda reactor: log.stop())
"""


@pytest.mark.parametrize("mode", ["blocking", "nonblocking"])
def test_standard_output_gets_every_line(mode: str) -> None:
    """In a container, with a pipe for standard output that others may have made non-blocking, nothing is lost."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, timeout=60, cwd=root, env={"PYTHONPATH": str(root)}
    )
    assert done.stderr == b""
    assert [json.loads(line)["request_id"] for line in done.stdout.splitlines()] == ["7f1d"] * 1000


WRITER = """
import sys
from threading import Event
from apigw.ops.appender import Appender
appenders = []
for letter in sys.argv[1]:
    ended = Event()
    appender = Appender("-", print, print, ended.set)
    appender.open()
    appenders.append((appender, ended))
    for _ in range(100):
        appender.append((letter * int(sys.argv[2]) + "\\n").encode() + b"short\\n")
for appender, _ in appenders:
    appender.start()
for appender, ended in appenders:
    appender.close()
    ended.wait()
"""


@pytest.mark.parametrize(("kind", "length"), [("pipe", 10_000), ("socket", 70_000)])
def test_long_lines_of_several_processes_stay_whole(kind: str, length: int) -> None:
    """Also where they inherited one standard output; on a pipe, also those of two threads of each."""
    reader, writer = os.pipe() if kind == "pipe" else [end.detach() for end in socket.socketpair()]
    letters = ["ab", "cd"] if kind == "pipe" else ["a", "b"]
    root = Path(__file__).parents[2]
    commands = [[sys.executable, "-c", WRITER, mine, str(length)] for mine in letters]
    programs = [
        subprocess.Popen(command, stdout=writer, cwd=root, env={"PYTHONPATH": str(root)}) for command in commands
    ]
    os.close(writer)
    with open(reader, "rb") as received:
        lines = received.read().splitlines()
    assert [program.wait() for program in programs] == [0, 0]
    expected = {letter.encode() * length: 100 for mine in letters for letter in mine}
    assert Counter(lines) == expected | {b"short": 100 * len(expected)}
