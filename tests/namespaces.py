"""Machines of this one: each has its own network, processes, hostname, /tmp and /dev/shm (Linux namespaces).

They share the kernel, the clock, and the environment with the code; nothing that anybody writes. Root alone makes them.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent
_OWN = ("--net", "--mount", "--uts", "--ipc", "--pid")
_BRIDGE = "sightline0"


@dataclass
class Machine:
    name: str
    address: str
    holder: subprocess.Popen[bytes]  # ends with all that runs there
    environment: Mapping[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def _pid(self) -> int:
        return psutil.Process(self.holder.pid).children()[0].pid

    def _inside(self, folder: Path | str, command: tuple[str, ...]) -> list[str]:
        return ["nsenter", "--target", str(self._pid), *_OWN, f"--wd={folder}", "--", *command]

    def run(self, *command: str, folder: Path | str = "/tmp") -> str:
        """What a command that succeeds prints."""
        done = subprocess.run(
            self._inside(folder, command), capture_output=True, text=True, env=self.environment, check=False
        )
        assert done.returncode == 0, f"{self.name}: {command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def start(self, *command: str, folder: Path | str = "/tmp", log: Path) -> subprocess.Popen[bytes]:
        """A command whose output goes to `log`; it ends with the machine."""
        with open(log, "ab") as out:
            process = subprocess.Popen(
                self._inside(folder, command), stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=self.environment
            )
        self.started.append(process)
        return process

    def kill(self) -> None:
        """As when it loses power: every process of it, at once."""
        if self.holder.poll() is None:
            os.kill(self._pid, signal.SIGKILL)
        for process in (*self.started, self.holder):
            process.wait()

    def cut(self) -> None:
        """Nothing goes in or out any more, and nobody is told."""
        self.run("ip", "link", "set", "eth0", "down")

    def mend(self) -> None:
        self.run("ip", "link", "set", "eth0", "up")


class Machines:
    """A switch, and machines at it.

    Args:
        folder: of the test, which the machines do not see.
    """

    def __init__(self, stack: ExitStack, folder: Path):
        self._stack, self._number = stack, 0
        self._switch = self._hold("--net")
        self._hosts = folder / "hosts"
        hosts = (f"10.77.0.{i} machine{i}" for i in range(1, 30))
        self._hosts.write_text("\n".join(("127.0.0.1 localhost", *hosts, "")))
        self._at_switch("ip", "link", "add", _BRIDGE, "type", "bridge")
        self._at_switch("ip", "link", "set", _BRIDGE, "up")

    def _hold(self, *own: str, script: str = "") -> subprocess.Popen[bytes]:
        command = ["unshare", *own, "--fork", "--kill-child", "sh", "-ec", f"{script}\nexec sleep infinity"]
        holder = self._stack.enter_context(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        self._stack.callback(holder.kill)  # and all that runs there
        until(lambda: holder.poll() is None and _sleeps(holder))
        return holder

    def _at_switch(self, *command: str) -> None:
        pid = psutil.Process(self._switch.pid).children()[0].pid
        subprocess.run(["nsenter", "--target", str(pid), "--net", *command], check=True)

    def add(self, environment: Mapping[str, str], *sees: Path) -> Machine:
        """One more.

        Args:
            environment: of every command there.
            sees: folders of this machine that are there, too.
        """
        self._number += 1
        name, address = f"machine{self._number}", f"10.77.0.{self._number}"
        script = f"hostname {name}\nmount --bind {shlex.quote(str(self._hosts))} /etc/hosts\n"
        script += "mount -t tmpfs tmpfs /dev/shm\n" + _own_tmp(sees)
        holder = self._hold(*_OWN, "--mount-proc", script=script)
        machine = Machine(name, address, holder, environment)
        self._stack.callback(machine.kill)
        link = f"sl{self._number}"
        self._at_switch("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(machine._pid))
        self._at_switch("ip", "link", "set", link, "master", _BRIDGE, "up")
        machine.run("ip", "link", "set", "lo", "up")
        machine.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        machine.mend()
        return machine


def _sleeps(holder: subprocess.Popen[bytes]) -> bool:
    return any("sleep" in child.name() for child in psutil.Process(holder.pid).children())


def _own_tmp(sees: Sequence[Path]) -> str:
    """Shell lines for a /tmp, and a folder for temporary files, in which are only code, environment and `sees`."""
    hidden = {"/tmp", tempfile.gettempdir()}
    kept = [path for path in map(str, (ROOT, sys.prefix, *sees)) if any(path.startswith(f"{top}/") for top in hidden)]
    lines = ["mount -t tmpfs tmpfs /mnt"]
    for i, path in enumerate(kept):
        lines += [f"mkdir /mnt/{i}", f"mount --bind {shlex.quote(path)} /mnt/{i}"]
    lines += [f"mount -t tmpfs -o mode=1777 tmpfs {shlex.quote(top)}" for top in sorted(hidden)]
    for i, path in enumerate(kept):
        lines += [f"mkdir -p {shlex.quote(path)}", f"mount --bind /mnt/{i} {shlex.quote(path)}"]
    return "\n".join(lines)


@contextmanager
def machines(folder: Path) -> Iterator[Machines]:
    """Skips where the system does not let this process make them."""
    probe = [["unshare", *_OWN, "--fork", "ip", "link", "add", "probe", "type", kind] for kind in ("bridge", "veth")]
    for command in probe:
        done: Any = None
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"no namespaces here: {error}")
        if done.returncode:
            pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    with ExitStack() as stack:
        yield Machines(stack, folder)
