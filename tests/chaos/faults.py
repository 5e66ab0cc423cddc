"""The faults: each disturbs one run of the workflow, says what an error has to name, and how a user mends it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import mounts
from damage import damage
from jobs import JOBS, Job
from sandbox import RESULTS, WORLD, Ended, Running, Sandbox


@dataclass
class Attempt:
    """A disturbed run.

    Attributes:
        ended: how it ended.
        names: of these, the error has to name at least one (none: the fault itself says what happened).
        mend: what the user does before the second run.
        note: what was done, for the log.
    """

    ended: Ended
    names: tuple[str, ...] = ()
    mend: Callable[[], None] = field(default=lambda: None)
    note: str = ""


class Skipped(Exception):
    """This machine does not allow the fault."""


Fault = Callable[[Sandbox, Job, random.Random], Attempt]


def _unlock(sandbox: Sandbox) -> Callable[[], None]:
    """Return the remedy for a workflow that could not take its lock away."""
    return lambda: mounts.shell(sandbox, "snakemake", "--unlock", "--configfile", *mounts.settings())


def _member(running: Running, deadline: float = 60.0) -> None:
    """Wait until the job's own processes are there."""
    end = time.monotonic() + deadline
    while not running.members() and running.process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)


def _strike(
    sandbox: Sandbox, job: Job, rng: random.Random, hit: Callable[[Running], str], env: dict[str, str] | None = None
) -> Attempt:
    """Run a job and strike at a random moment of its life; a strike that came too late is tried again, earlier."""
    longest, note, ended = 1.4 * job.seconds, "", Ended(0, "")
    for _ in range(3):
        job.reset(sandbox)
        running = sandbox.start(job.target, env=env)
        _member(running)
        delay = rng.uniform(0, longest)
        time.sleep(delay)
        alive = running.process.poll() is None and bool(running.members())
        note = f"{hit(running)} after {delay:.2f} s" if alive else f"too late ({delay:.2f} s)"
        ended = running.wait()
        if alive:
            break
        longest /= 2
    return Attempt(ended, mend=_unlock(sandbox), note=note)


def kill(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
    """SIGKILL one process of the job."""

    def hit(running: Running) -> str:
        pid = rng.choice(running.members() or [0])
        if pid:
            running.kill([pid])
        return f"SIGKILL to {pid}"

    return _strike(sandbox, job, rng, hit)


def terminate(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
    """SIGTERM to all processes of the job, as a batch system does."""

    def hit(running: Running) -> str:
        running.kill(running.members(), signal.SIGTERM)
        return "SIGTERM to the job"

    return _strike(sandbox, job, rng, hit)


def interrupt(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
    """Ctrl-C: SIGINT to everything."""

    def hit(running: Running) -> str:
        running.kill([running.process.pid, *running.members()], signal.SIGINT)
        return "SIGINT to all"

    return _strike(sandbox, job, rng, hit)


def headless(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
    """SIGKILL to snakemake alone: its job goes on as an orphan while the next run starts the same job."""

    runs: list[Running] = []

    def hit(running: Running) -> str:
        runs.append(running)
        running.kill([running.process.pid])
        return "SIGKILL to snakemake"

    def mend() -> None:
        _unlock(sandbox)()
        early = sandbox.run(job.target)  # the orphan may be at work: a clear error, or the right result
        if early.code and "another process" not in early.text:
            raise RuntimeError(f"a run beside an orphan: {early.text[-2000:]}")
        for running in runs:
            end = time.monotonic() + 120
            while running.members() and time.monotonic() < end:
                time.sleep(0.1)

    attempt = _strike(sandbox, job, rng, hit)
    attempt.mend = mend
    return attempt


def power_cut(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
    """SIGKILL to everything at once."""

    def hit(running: Running) -> str:
        running.kill([running.process.pid, *running.members()])
        return "SIGKILL to all"

    return _strike(sandbox, job, rng, hit)


def full_disk(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
    """Results or data lie on a small file system that fills up."""
    place = WORLD if job.target.startswith(WORLD) else RESULTS
    if job.rule == "world":
        place = str(PurePosixPath(WORLD).parent)  # a world is moved into its place by renaming
    whole = mounts.size(sandbox / place)
    job.reset(sandbox)
    used = mounts.size(sandbox / place)
    room = used + int(rng.uniform(0.05, 0.95) * max(whole - used, 1 << 15))
    if not mounts.allowed():
        raise Skipped("no file system can be mounted here")
    disk = mounts.Tmpfs(sandbox / place, room)
    ended = sandbox.run(job.target)
    return Attempt(ended, ("No space left", "bytes are free", "Errno 28"), disk.widen, f"{room - used} bytes left")


def read_only(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
    """The data folder cannot be written."""
    if not mounts.allowed():
        raise Skipped("no file system can be mounted here")
    job.reset(sandbox)
    bound = mounts.ReadOnly(sandbox / WORLD)
    ended = sandbox.run(job.target)
    return Attempt(ended, ("Read-only file system", WORLD), bound.undo)


def two_runs(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
    """Two users start the same workflow; the lock names itself, or the second finds the work done."""
    job.reset(sandbox)
    first = sandbox.start(job.target)
    time.sleep(rng.uniform(0, 6))
    second = sandbox.start(job.target)
    ends = [first.wait(), second.wait()]
    failed = [ended for ended in ends if ended.code]
    return Attempt(failed[0] if failed else ends[0], ("lock",), note=f"codes {[ended.code for ended in ends]}")


def same_job_twice(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
    """The same job runs twice at once and writes the same files (`--nolock`)."""
    job.reset(sandbox)
    runs = [Running(sandbox, [*mounts.command(), "--nolock", "--", job.target], {}) for _ in range(2)]
    ends = [running.wait() for running in runs]
    failed = [ended for ended in ends if ended.code]
    names = ("another process",) if failed else ()
    return Attempt(failed[0] if failed else ends[0], names, note=f"codes {[ended.code for ended in ends]}")


def clock(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
    """Dates of data and results lie in the future, in the past, or all over."""
    start = rng.choice([-(20 * 365 * 86400), 0, 3 * 86400])
    for name in (RESULTS, WORLD):
        for path in sorted((sandbox / name).rglob("*")):
            then = time.time() + start + rng.uniform(-86400, 86400)
            os.utime(path, (then, then))
    job.reset(sandbox)
    env = {"TZ": rng.choice(["Pacific/Kiritimati", "America/Los_Angeles", "Asia/Kathmandu"])}

    def mend() -> None:
        """Set the dates that lie in the future to now."""
        for name in (RESULTS, WORLD):
            for path in (sandbox / name).rglob("*"):
                if path.stat().st_mtime > time.time():
                    os.utime(path)

    ended = sandbox.run(job.target, env=env)
    return Attempt(ended, ("older modification time",), mend, f"{start / 86400:+.0f} days, {env['TZ']}")


ENVIRONMENTS: Sequence[dict[str, str]] = (
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Asia/Tokyo"},
    {"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8", "LANGUAGE": "de"},
    {"PYTHONIOENCODING": "latin-1", "LC_ALL": "C.UTF-8"},
    {"PYTHONHASHSEED": "1"},
    {"PYTHONHASHSEED": "4242", "TZ": "America/St_Johns"},
    {"COLUMNS": "20", "TERM": "dumb", "NO_COLOR": "1"},
)


def environment(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
    """Another language, encoding, time zone or hash seed."""
    env = rng.choice(ENVIRONMENTS)
    job.reset(sandbox)
    return Attempt(sandbox.run(job.target, env=env), note=" ".join(f"{k}={v}" for k, v in env.items()))


def damaged(pattern: str) -> Fault:
    """Return the fault that a file matching `pattern` is cut, overwritten or has a flipped bit when a job reads it."""

    def fault(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
        job.reset(sandbox)
        path = rng.choice(sorted(sandbox.tree.glob(pattern)))
        what = damage(path, rng)
        name = path.relative_to(sandbox.tree).as_posix()
        listed = (f"{WORLD}/world.json",) if name.startswith(WORLD) else ()  # images are checked as a set
        return Attempt(
            sandbox.run(job.target), (name, path.parent.name + "/", *listed), _renew(sandbox, name), f"{name}: {what}"
        )

    return fault


def _renew(sandbox: Sandbox, name: str) -> Callable[[], None]:
    """Return the remedy that the errors name: remove what a job made, or fetch again what none makes."""

    def mend() -> None:
        source = sandbox.finished / name
        if name.startswith(("config/", "data/backbones/")):
            shutil.copy2(source, sandbox / name)
            return
        (sandbox / name).unlink(missing_ok=True)
        if (sandbox / name).parent.joinpath("files.seal").exists():
            shutil.rmtree((sandbox / name).parent)
        elif name.startswith(WORLD):
            (sandbox / WORLD / "world.json").unlink(missing_ok=True)

    return mend


def unfinished(pattern: str, watched: str) -> Fault:
    """Return the fault that a job is killed once a file matching `watched` is there and one of `pattern` damaged."""

    def fault(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
        job.reset(sandbox)
        running = sandbox.start(job.target)
        end = time.monotonic() + 120
        found: list[str] = []
        while not found and running.process.poll() is None and time.monotonic() < end:
            found = sorted(p.as_posix() for p in sandbox.tree.glob(watched) if p.is_file())
            time.sleep(0.003)
        running.kill([running.process.pid, *running.members()])
        running.wait()
        _unlock(sandbox)()
        left = sorted(p for p in sandbox.tree.glob(pattern) if p.is_file())
        if not left:
            return Attempt(sandbox.run(job.target), mend=_unlock(sandbox), note="killed; nothing left to damage")
        path = rng.choice(left)
        what = damage(path, rng)
        name = path.relative_to(sandbox.tree).as_posix()
        return Attempt(
            sandbox.run(job.target), (name, path.parent.name), lambda: path.unlink(missing_ok=True), f"{name}: {what}"
        )

    return fault


def everything(sandbox: Sandbox, job: Job, rng: random.Random) -> Attempt:
    """The whole workflow from nothing, killed again and again."""
    for each in JOBS.values():
        each.reset(sandbox)
    shutil.rmtree(sandbox / f"{WORLD}/features", ignore_errors=True)
    for name in ("models", "predictions", "scores", "validation", "redundancy", "paper"):
        shutil.rmtree(sandbox / RESULTS / name, ignore_errors=True)
    ended, moments = Ended(0, ""), []
    for _ in range(3):
        running = sandbox.start()
        _member(running)
        moments.append(rng.uniform(0, 40))
        time.sleep(moments[-1])
        running.kill([running.process.pid, *running.members()])
        ended = running.wait()
        _unlock(sandbox)()
    return Attempt(ended, note=f"SIGKILL to all after {[round(m, 1) for m in moments]} s")
