"""A real systemd, as the first process of namespaces of its own, on a copy of this machine's files that is thrown away.

The gateway that is tested is installed there as contrib/systemd/apigw.service says.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import apigw
from support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
NAMESPACES = ("--pid", "--fork", "--kill-child", "--mount", "--cgroup", "--net", "--uts", "--ipc")

OUTER = r"""
mkdir -p groups root
mount -t cgroup2 cgroup2 groups || exit 70
mkdir groups/apigw-$$ && echo $$ >groups/apigw-$$/cgroup.procs || exit 70
unshare "$@"
echo $$ >groups/cgroup.procs
for try in {1..100}; do # while its processes still end, a group is busy
  find groups/apigw-$$ -depth -type d -exec rmdir {} + 2>/dev/null && break
  sleep 0.05
done
"""
"""Systemd must be in a group that is not the machine's first one, or it would take all processes for its own."""

TRIAL = r"""
mkdir a b c d
mount -t cgroup2 cgroup2 a && group=$(mktemp --directory a/apigw-XXXXXX) && rmdir "$group" &&
  mount -t tmpfs tmpfs b && mkdir b/up b/work &&
  mount -t overlay overlay -o "lowerdir=d,upperdir=b/up,workdir=b/work" c
"""
"""In a namespace each is process 1, and several may be tried at once: the number tells none from another."""

INNER = r"""
set -e
over() { # a directory as it is, whose changes go to memory
  number=$((number + 1)); mkdir -p up$number work$number "$2"
  mount -t overlay overlay -o "lowerdir=$1,upperdir=$PWD/up$number,workdir=$PWD/work$number" "$2"
}
python=$1 checkout=$2 packages=$3 source=$4
program=opt/python/bin/$(basename "$(readlink -f "$python"/bin/python3)")
mount -t tmpfs tmpfs root
cd root
over / new
mount -t proc proc new/proc
mount -t sysfs sysfs new/sys
mount -t cgroup2 cgroup2 new/sys/fs/cgroup
for name in run tmp dev; do mount -t tmpfs tmpfs new/$name; done
mkdir new/dev/pts new/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts new/dev/pts
ln -s pts/ptmx new/dev/ptmx
ln -s /proc/self/fd new/dev/fd
for name in null zero full random urandom tty; do touch new/dev/$name; mount --bind /dev/$name new/dev/$name; done
ip link set lo up

mkdir -p new/opt new/etc/apigw
over "$python" new/opt/python
new/$program -m venv --without-pip new/opt/apigw
ln -sf /$program new/opt/apigw/bin/python
sed -i 's!^home = .*!home = /opt/python/bin!' new/opt/apigw/pyvenv.cfg
over "$packages" new/opt/apigw/packages
over "$source" new/opt/apigw/source
printf '/opt/apigw/source\n/opt/apigw/packages\n' >"$(echo new/opt/apigw/lib/python*/site-packages)/apigw.pth"
for pair in apigw:apigw.cli.main:main twistd:twisted.scripts.twistd:run; do
  IFS=: read -r name module function <<<"$pair"
  printf '#!/opt/apigw/bin/python\nimport sys\nfrom %s import %s\nsys.exit(%s())\n' "$module" "$function" "$function" \
    >new/opt/apigw/bin/$name
  chmod 755 new/opt/apigw/bin/$name
done
rm -rf new/etc/systemd/system/* new/lib/systemd/system/*.target.wants new/etc/default/apigw
cp "$checkout"/contrib/systemd/* new/etc/systemd/system/
cp -r "$checkout"/etc/* new/etc/apigw/
mkdir -p new/etc/systemd/system.conf.d
printf '[Manager]\nDefaultEnvironment=LD_LIBRARY_PATH=/opt/python/lib\n' >new/etc/systemd/system.conf.d/python.conf
mkdir new/old
pivot_root new new/old
cd /
umount -l old
/opt/apigw/bin/twistd --help >/dev/null
/opt/apigw/bin/apigw check --json /etc/apigw >/dev/null # as root, who may write __pycache__
useradd --system --home-dir /var/lib/apigw --shell /usr/sbin/nologin apigw
chown -R root:apigw /etc/apigw
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=apigw-test /lib/systemd/systemd --unit=systemd-journald.service
"""


@cache
def obstacle() -> str:
    """Why no systemd can be booted; nothing if one can."""
    missing = [name for name in ("unshare", "nsenter", "curl", "systemctl", "journalctl") if shutil.which(name) is None]
    if missing or not SYSTEMD.exists():
        return f"{(missing or [str(SYSTEMD)])[0]} is not installed"
    with TemporaryDirectory() as scratch:
        tried = subprocess.run(
            ["unshare", *NAMESPACES, "bash", "-c", TRIAL], cwd=scratch, capture_output=True, text=True, check=False
        )
    return tried.stderr.strip().split("\n")[-1]


def _children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def _name(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text().strip()


class Machine:
    """Commands run in it by ``run``, as root."""

    def __init__(self, directory: Path) -> None:
        paths = (sys.base_prefix, ROOT, sysconfig.get_path("purelib"), Path(apigw.__file__).parents[1])
        self._outer = subprocess.Popen(
            ["unshare", "--mount", "bash", "-c", OUTER, "outer", *NAMESPACES, "bash", "-c", INNER, "inner", *paths],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(directory / "stderr").open("w"),
        )
        self._errors = directory / "stderr"
        try:
            self._first = eventually(self._find)
            eventually(lambda: "systemd-journald.service" in self.said("systemctl", "list-units", "--state=active"))
        except BaseException:
            self.stop()
            raise

    def _find(self) -> int | None:
        """The process that is the first one in there, once it is systemd."""
        assert self._outer.poll() is None, self._errors.read_text()
        for unshared in _children(self._outer.pid):
            for process in _children(unshared):
                if _name(process) == "systemd":
                    return process
        return None

    def stop(self) -> None:
        """Kills it, and with it all that runs in it."""
        eventually(self._stopped)

    def _stopped(self) -> bool:
        for process in _children(self._outer.pid):
            if _name(process) == "unshare":
                os.kill(process, signal.SIGKILL)
        return self._outer.poll() is not None

    def started(self, *command: str) -> subprocess.Popen[str]:
        enter = ["nsenter", "--target", str(self._first), "--mount", "--net", "--pid", "--cgroup", "--ipc"]
        return subprocess.Popen(
            [*enter, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        with self.started(*command) as process:
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def said(self, *command: str) -> str:
        """Standard output of a command that succeeds."""
        done = self.run(*command)
        assert done.returncode == 0, (done.stderr, self.journal())
        return done.stdout.strip()

    def journal(self, *options: str) -> str:
        return self.run("journalctl", "--unit=apigw", "--output=cat", "--no-pager", *options).stdout

    def write(self, path: str, text: str) -> None:
        Path(f"/proc/{self._first}/root{path}").write_text(text)
