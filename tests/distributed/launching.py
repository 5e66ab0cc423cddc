"""A tiny world, and the real command on it with any number of processes (CPU, gloo)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import yaml
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/unit"))
from tiny_training import config_of, make_world  # noqa: E402

ROWS = (
    "fused\tSTF + MBTF\tstf\t\tstf-mbtf\tstf-mbtf\t\t\tmain\t3\t\t\n",
    "nested\tM3\tm3\t\tm3\tm3\t\t\tmain\t3\t\t\n",
)
LOSSES = ("step", "loss", "lr", "tokens", "stage_layer", "stage_stride")


def make(root):
    """Write the world, with more methods in its table and without cached features: the tower runs in every job."""
    make_world(root)
    for method in ("stf-mbtf", "m3"):
        shutil.copy(ROOT / f"config/methods/{method}.yaml", root / "config/methods")
    with (root / "config/experiments.tsv").open("a") as table:
        table.writelines(ROWS)


class Job:
    """One training run in a folder of its own; started again, it continues."""

    def __init__(self, world, folder, *, processes=1, experiment="none", **tune):
        self.run, self.out, self.processes = folder / "run", folder / "out", processes
        self._said = folder / "said.txt"
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / "settings.yaml"
        settings.write_text(yaml.safe_dump(config_of(world, **tune).model_dump(mode="json")))
        paths = ["--run-dir", self.run, "--out", self.out]
        self.arguments = ["train", "--config", settings, "--experiment", experiment, "--stage", "tune", *paths]

    def start(self):
        """Start it and return the process (of torchrun, if there are several)."""
        several = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes), "-m"]
        module = [*several, "visiontokens"] if self.processes > 1 else ["visiontokens"]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-m", *module, *map(str, self.arguments)]
        with self._said.open("w") as said:  # nobody would empty a pipe while the test waits for steps
            return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True)

    @staticmethod
    def kill(process):
        """End a started process and its workers at once (torchrun gives each a session of its own)."""
        for victim in [*psutil.Process(process.pid).children(recursive=True), process]:
            victim.kill()

    def said(self, process):
        """Wait for the end of a started process and return what it said."""
        try:
            process.wait(timeout=600)
        finally:
            process.kill()
        return self._said.read_text()

    def finish(self, *, fails=False):
        """Run it to its end and return what it said."""
        process = self.start()
        said = self.said(process)
        assert (process.returncode != 0) == fails, said[-6000:]
        return said

    @property
    def steps(self):
        """Steps logged so far."""
        path = self.run / "log.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def log(self):
        """Return the finished run's log without times."""
        rows = [json.loads(line) for line in (self.out / "log.jsonl").read_text().splitlines()]
        return [{key: row[key] for key in LOSSES} for row in rows]

    def weights(self):
        """Return the finished run's weights."""
        return load_file(self.out / "model.safetensors")
