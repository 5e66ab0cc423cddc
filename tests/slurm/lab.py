"""A real SLURM of one node on loopback, without systemd: everything it writes lies in one temporary folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
PACKAGES = ("slurm-wlm", "munge")
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
CONFIG = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
DefMemPerCPU=256
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000,bf_interval=2
KillWait=60
MinJobAge=300
SlurmdTimeout=60
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:fake:{gpus} State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=120 DefaultTime=30 State=UP
"""


def missing() -> list[str]:
    """Return the commands that are not installed."""
    path = f"{os.environ['PATH']}:{SYSTEM}"
    return [name for name in COMMANDS if shutil.which(name, path=path) is None]


def install() -> None:
    """Install SLURM from the distribution (root only); no service of the system is started by it."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        subprocess.run(["apt-get", *words], env=env, check=True, capture_output=True, timeout=300)


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, ready: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until `ready` says so.

    Raises:
        TimeoutError: it did not in time.
    """
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)


class Lab:
    """The cluster: `start`, `stop`, a few questions and one accident.

    Args:
        folder: for keys, settings, state, sockets and logs.
        cpus: of the node.
        gpus: of the node; each is a link to /dev/null, which SLURM hands out like a real one.
    """

    def __init__(self, folder: Path, cpus: int = 2, gpus: int = 2) -> None:
        self.folder, self._cpus, self._gpus = folder, cpus, gpus
        self._host = socket.gethostname().split(".")[0]
        self.env = {
            **os.environ,
            "SLURM_CONF": str(folder / "etc/slurm.conf"),
            "PATH": f"{folder}/bin:{os.environ['PATH']}:{SYSTEM}",
        }

    def start(self) -> None:
        """Write the settings and start the three daemons."""
        for name in ("etc", "run", "log", "state", "spool", "dev", "bin"):
            (self.folder / name).mkdir(parents=True)
        for path in (self.folder, self.folder / "run"):
            path.chmod(0o755)
        self._write_settings()
        run, logs = self.folder / "run", self.folder / "log"
        self.call(
            "munged", "--force", f"--key-file={self.folder}/etc/munge.key", f"--socket={run}/munge.socket",
            f"--pid-file={run}/munged.pid", f"--log-file={logs}/munged.log", f"--seed-file={run}/munged.seed",
        )  # fmt: skip
        wait_for("munged", (run / "munge.socket").is_socket)
        self.call("slurmctld")
        wait_for("slurmctld", lambda: "UP" in self.call("scontrol", "ping", check=False))
        self.start_node()

    def start_node(self) -> None:
        """Start the node daemon."""
        self.call("slurmd", "-N", self._host)
        ready = ("idle", "mixed", "allocated")
        wait_for("slurmd", lambda: self.call("sinfo", "-h", "-o", "%T", check=False).strip() in ready, 60)

    def kill_node_daemon(self) -> None:
        """End the node daemon as a crash does; the jobs' own processes go on."""
        self._signal("slurmd", signal.SIGKILL)
        (self.folder / "run/slurmd.pid").unlink()

    def stop(self) -> None:
        """Cancel what runs and end every daemon, whatever state it is in."""
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            self.call("scancel", "--signal=KILL", "--full", "--state=RUNNING", check=False)
            self.call("scancel", "--user", str(os.getuid()), check=False)
            wait_for("empty queue", lambda: not self.jobs(), 15)
        for name in ("slurmd", "slurmctld", "munged"):
            self._end(name)

    def call(self, *words: str, check: bool = True) -> str:
        """Run one of SLURM's commands and return what it printed."""
        done = subprocess.run(
            words, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def jobs(self) -> dict[str, tuple[str, str]]:
        """Return state and comment (which names the rule) of the jobs in the queue, by id."""
        rows = [line.split(maxsplit=2) for line in self.call("squeue", "-h", "-o", "%i %T %k").splitlines()]
        return {row[0]: (row[1], row[2] if len(row) > 2 else "") for row in rows}

    def job_of(self, rule: str) -> str | None:
        """Return the id of a running job of a rule."""
        found = [job for job, (state, note) in self.jobs().items() if state == "RUNNING" and f"rule_{rule}" in note]
        return found[0] if found else None

    def ended(self, job: str) -> bool:
        """Tell whether a job is over (`SIGNALING` and `COMPLETING` are states of a job whose processes live)."""
        return self.jobs().get(job, ("GONE", ""))[0] not in {"RUNNING", "SIGNALING", "COMPLETING"}

    def _write_settings(self) -> None:
        etc, user = self.folder / "etc", subprocess.check_output(["id", "-un"], text=True).strip()
        key = etc / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        for number in range(self._gpus):
            (self.folder / f"dev/fake{number}").symlink_to("/dev/null")
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 512
        settings = CONFIG.format(
            host=self._host, user=user, folder=self.folder, ports=(free_port(), free_port()), cpus=self._cpus,
            gpus=self._gpus, memory=memory,
        )  # fmt: skip
        (etc / "slurm.conf").write_text(settings)
        devices = f"{self.folder}/dev/fake[0-{self._gpus - 1}]"
        (etc / "gres.conf").write_text(f"NodeName={self._host} Name=gpu Type=fake File={devices}\n")
        (etc / "cgroup.conf").write_text("CgroupAutomount=no\n")
        # Snakemake's job step drops SLURM_CONF from the environment of the srun below it.
        srun = self.folder / "bin/srun"
        srun.write_text(f'#!/bin/sh\nexport SLURM_CONF={etc}/slurm.conf\nexec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)

    def _pid(self, name: str) -> int | None:
        path = self.folder / f"run/{name}.pid"
        text = path.read_text().strip() if path.is_file() else ""
        return int(text) if text else None

    def _signal(self, name: str, number: int) -> bool:
        pid = self._pid(name)
        try:
            if pid is not None:
                os.kill(pid, number)
        except ProcessLookupError:
            return False
        return pid is not None

    def _end(self, name: str) -> None:
        pid = self._pid(name)
        if pid is None or not self._signal(name, signal.SIGTERM):
            return
        try:
            wait_for(name, lambda: not _alive(pid), 20)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
