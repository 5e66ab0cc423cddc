"""The bill before a run: jobs, GPU-hours, disk, downloads; from Snakemake's dry run and the registry alone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from visiontokens.config import Config, load_config
from visiontokens.data.registry import Entry, destination, read_registry
from visiontokens.measure.budget import Budget

_RULE = re.compile(r"^(?:local)?rule (\w+):$")
_WILDCARDS = re.compile(r"^    wildcards: (.*)$")
TRAINING = ("align", "tune")
FINAL = {"fp32": 4, "bf16": 2}
"""Bytes per weight of a finished model by `saved_precision`."""
ROLLING, ROLLING_LORA = 14, 2
"""Bytes per weight of a DeepSpeed checkpoint (bf16; of what trains an fp32 copy and
Adam's moments too, which are little with adapters)."""


class PlanError(ValueError):
    """The workflow cannot be planned; the message is Snakemake's."""


@dataclass(frozen=True)
class Job:
    """One job of the plan."""

    rule: str
    wildcards: dict[str, str]


def plan(files: Sequence[str | Path], *, everything: bool = False) -> str:
    """Return the bill of what is left to run (or of `everything`) as text.

    Raises:
        PlanError: Snakemake refuses to plan.
        ConfigError: wrong settings.
    """
    config = load_config(files)
    jobs = planned(files, everything=everything)
    return "\n".join([*_jobs(config, jobs), "", *_downloads(config, jobs), "", *_disk(config, jobs), ""])


def planned(files: Sequence[str | Path], *, everything: bool = False) -> list[Job]:
    """Return the jobs of a dry run under these settings files."""
    call = [sys.executable, "-m", "snakemake", "-n", "--nolock", "--nocolor", "--quiet", "host", "--configfile"]
    call += [*map(str, files), *(["--forceall"] if everything else [])]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    if done.returncode:
        raise PlanError(f"the workflow cannot be planned: {text.strip()}")
    return list(read_jobs(text))


def read_jobs(text: str) -> Iterator[Job]:
    """Yield the jobs that a dry run prints: a line `rule NAME:`, and `wildcards: a=b, c=d` for a rule that has some."""
    rule, wildcards = "", ""
    for line in [*text.splitlines(), "rule end:"]:
        if match := _RULE.match(line):
            if rule:
                yield Job(rule, dict(pair.split("=", 1) for pair in wildcards.split(", ") if pair))
            rule, wildcards = match[1], ""
        elif match := _WILDCARDS.match(line):
            wildcards = match[1]


def _jobs(config: Config, jobs: Sequence[Job]) -> list[str]:
    """Return the table of jobs and GPU-hours, and what the hours rest on."""
    budget, settings = Budget(config), config.plan
    counts = Counter(job.rule for job in jobs)
    hours: dict[str, float] = defaultdict(float)
    for job in jobs:
        hours[job.rule] += budget.hours(job.rule, job.wildcards.get("experiment", ""))
    total = sum(hours.values())
    lines = [f"Plan of scale {config.scale}: {len(jobs)} jobs to run", "", f"{'rule':<12}{'jobs':>7}{'GPU-hours':>12}"]
    lines += [f"{rule:<12}{count:>7,}{hours[rule]:>12,.1f}" for rule, count in counts.items()]
    lines.append(f"{'total':<12}{len(jobs):>7,}{total:>12,.1f}")
    if settings.device is None:
        return [*lines, "", "No job needs a GPU: the jobs run on the CPU, and GPU-hours are 0 (plan.device is null)."]
    return [
        *lines,
        "",
        f"GPU-hours: FLOPs / ({settings.tflops:g} TFLOPs x {settings.mfu:.0%} MFU) of {settings.device}, declared in "
        "`plan`, not measured.",
        "  training: 2 forward passes' worth a sample in align, 3 in tune, and the tower; recomputation is in the MFU",
        f"  text tokens a sample: {settings.align_text} in align, {settings.tune_text} in tune; an image in each",
        f"  answers: one question at a time, {settings.question_text} text tokens, {settings.answer_tokens} tokens at "
        f"{settings.decode_ms:g} ms; start-up {settings.startup_minutes:g} minutes a job",
        f"Wall clock with {settings.gpus} GPUs always busy: {total / settings.gpus / 24:,.1f} days.",
    ]


def _downloads(config: Config, jobs: Sequence[Job]) -> list[str]:
    """Return the table of downloads with sizes, licences and what must be placed by hand."""
    entries = _fetched(config, jobs)
    if not entries:
        return ["Downloads: none."]
    lines = ["Downloads", f"{'name':<24}{'GB':>9}  licence"]
    for entry in entries:
        size = f"{entry.gigabytes:.3f}" if entry.gigabytes else "?"
        hand = " [by hand: " + entry.note + "]" if not entry.source else ""
        lines.append(f"{entry.name:<24}{size:>9}  {entry.licence or 'not stated'}{hand}")
    unknown = sum(entry.gigabytes is None for entry in entries)
    total = sum(entry.gigabytes or 0.0 for entry in entries)
    return [*lines, f"{'total':<24}{total:>9.3f}  and {unknown} of unknown size"]


def _fetched(config: Config, jobs: Sequence[Job]) -> list[Entry]:
    """Return the entries whose download is planned and that are not there yet."""
    entries = read_registry(config.downloads.registry)
    folders = {str(destination(entry, config)): entry for entry in entries.values()}
    found = [entries[job.wildcards["entry"]] for job in jobs if job.rule == "download"]
    found += [folders[job.wildcards["folder"]] for job in jobs if job.rule == "weights"]
    order = list(entries)
    missing = [entry for entry in found if not destination(entry, config).exists()]
    return sorted(missing, key=lambda entry: order.index(entry.name))


def _disk(config: Config, jobs: Sequence[Job]) -> list[str]:
    """Return the disk that downloads and results take."""
    entries = _fetched(config, jobs)
    packed = [entry.gigabytes or 0.0 for entry in entries if entry.member]
    data = sum(entry.gigabytes or 0.0 for entry in entries)
    lines = ["Disk", f"  data and weights           {data:>10,.0f} GB (extracted images take about what archives do)"]
    if config.downloads.keep_archives:
        lines.append(f"  archives that are kept     {sum(packed):>10,.0f} GB")
    else:
        lines.append(f"  largest archive, meanwhile {max(packed, default=0.0):>10,.0f} GB")
    if config.plan.device is None:
        return [*lines, "  results                    a few GB (docs/reproduce.md)"]
    budget = Budget(config)
    saved = {"align": config.train.align.saved_precision, "tune": config.train.tune.saved_precision}
    trainings = [(job.rule, budget.weights(job.wildcards["experiment"])) for job in jobs if job.rule in TRAINING]
    models = sum(FINAL[saved[rule]] * count for rule, count in trainings) / 1e9
    weights = [count for _, count in trainings]
    rolling = 2 * (ROLLING_LORA if config.train.tune.lora else ROLLING) * max(weights, default=0) / 1e9
    return [
        *lines,
        f"  models of both stages      {models:>10,.0f} GB",
        f"  rolling checkpoints        {rolling:>10,.0f} GB for each run at work (the last and the next)",
        f"  together, one run at work  {data + max(packed, default=0.0) + models + rolling:>10,.0f} GB",
    ]
