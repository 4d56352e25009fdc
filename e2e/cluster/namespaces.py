"""The node's own network, mount and PID namespace: the machine stays as it is, and one kill ends all."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from . import cgroups
from .errors import NotReady
from .layout import Layout, marked_environment
from .processes import Component, Processes

NODE_IP = "10.88.0.1"
POD_CIDR = "10.244.0.0/16"
HOLDER = "namespaces"

# The kubelet insists on these values; it is shown plain files that hold them, so that the machine's own settings stay.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

# containerd, the kubelet and CNI plugins write below these whatever they are told; inside, it goes to the bed's state.
COVERED = ("/etc", "/opt", "/usr/libexec", "/var/lib")

# The first process sets itself up and then becomes `pause`: namespaces without all of this are never taken for open.
_SET_UP = """
set -e
mount --make-rprivate /
mount --make-rshared /
for folder in $COVERED; do
  layers="$LAYERS$folder"
  mkdir -p "$layers/upper" "$layers/work"
  mount -t overlay overlay -o "lowerdir=$folder,upperdir=$layers/upper,workdir=$layers/work" "$folder"
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /var/log/containers
for file in "$SETTINGS"/*; do mount --bind "$file" "/proc/sys/$(basename "$file" | tr . /)"; done
ip link set lo up
ip link add node0 type bridge
ip address add "$NODE_IP/24" dev node0
ip link set node0 up
ip route add default dev node0
echo 1 > /proc/sys/net/ipv4/ip_forward
exec "$0"
"""


class Namespaces:
    """The namespaces of one bed, held open by a `pause` process."""

    def __init__(self, layout: Layout, processes: Processes) -> None:
        self._layout, self._processes = layout, processes

    @property
    def are_open(self) -> bool:
        """Whether the first process runs and has set everything up."""
        record = self._processes.alive(HOLDER)
        return record is not None and _program(record.pid) == "pause"

    @property
    def prefix(self) -> tuple[str, ...]:
        """The command that runs another inside; it forks."""
        record = self._processes.alive(HOLDER)
        if record is None:
            raise NotReady(f"the namespaces of bed {self._layout.name!r} are gone; run `up` again")
        return ("nsenter", f"--target={record.pid}", "--mount", "--net", "--pid", "--")

    def open(self, pause: Path) -> bool:
        """Create the namespaces, with program `pause` as first process, unless they are there; True when created."""
        if self.are_open:
            return False
        self.close()
        cgroups.create(self._layout.cgroup)
        options = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private")
        # `unshare` runs this as the first process; bash calls its first argument $0.
        command = ("bash", "-c", _SET_UP, str(pause))
        holder = Component(HOLDER, command, self._environment(), lambda: self.are_open, deadline_s=20.0)
        self._processes.start(holder, prefix=("unshare", *options, "--"))
        try:
            self._processes.await_ready(holder)
        except BaseException:
            self.close()
            raise
        return True

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a command inside and give its output; NotReady with its words when it fails."""
        ran = subprocess.run([*self.prefix, *command], input=stdin, capture_output=True, text=True)
        if ran.returncode:
            raise NotReady(f"`{' '.join(command)}` inside the bed ended with {ran.returncode}:\n{ran.stderr.strip()}")
        return ran.stdout

    def close(self) -> None:
        """End everything inside, and remove the cgroups; NotReady when something would not go."""
        self._processes.stop(HOLDER, signal.SIGKILL)
        left = cgroups.remove(self._layout.cgroup)
        if left:
            raise NotReady(f"processes still run in {left[0]}; see {left[0] / 'cgroup.procs'}")

    def _environment(self) -> dict[str, str]:
        settings = self._layout.state / "sysctl"
        settings.mkdir(parents=True, exist_ok=True)
        for name, value in KERNEL_SETTINGS.items():
            # "." stands for "/": none of these names has one of its own.
            (settings / name.replace("/", ".")).write_text(value + "\n")
        return {
            **marked_environment(self._layout),
            "SETTINGS": str(settings),
            "LAYERS": str(self._layout.state / "layers"),
            "COVERED": " ".join(folder for folder in COVERED if Path(folder).is_dir()),
            "NODE_IP": NODE_IP,
        }


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""
