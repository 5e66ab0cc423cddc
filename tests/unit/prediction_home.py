"""A model of random weights, the smoke world's questions, and settings that put them together.

Run as a script it is the command `visiontokens`, which notes how many questions it is about to answer in every batch:
`python prediction_home.py NOTES ARGUMENTS...`, for tests that kill it.
"""

import os
import sys
from pathlib import Path

import yaml
from smoke_world import smoke_world
from tiny_home import make_home, weights

from visiontokens.config import parse_config

BENCHMARKS = ["pope", "scienceqa"]
TABLE = Path(__file__).parents[2] / "config/experiments.tsv"


def make_prediction_home(root, methods=("none",)):
    """Write `models` (see `tiny_home`); the world is that of `smoke_world`."""
    return make_home(root, methods)


def settings(root, **evaluate):
    """Return settings under which the tower reads the world's images in the job itself, as it does official ones."""
    chosen = {"benchmarks": BENCHMARKS, "batch_size": 4, "max_new_tokens": 4, "precision": "fp32", **evaluate}
    return {
        "scale": "tiny",
        "world": None,
        "data": str(smoke_world()),
        "backbones": {"tower": str(root / "tower"), "llm": str(root / "llm")},
        "experiments": {"table": str(TABLE)},
        "threads": 1,
        "evaluate": chosen,
    }


def configuration(root, **evaluate):
    """Return the settings as a configuration."""
    return parse_config(settings(root, **evaluate), "tiny")


def arguments(root, out, **evaluate):
    """Write the settings and return the arguments of `visiontokens` that predict with them."""
    path = root / "settings.yaml"
    path.write_text(yaml.safe_dump(settings(root, **evaluate)))
    model = weights(root)
    return ["predict", "--config", path, "--experiment", "none", "--model", model, "--out", out]


def main():
    """Answer questions and note how many."""
    from visiontokens.cli import main as command
    from visiontokens.evaluate.respond import Responder

    respond = Responder.respond
    notes = Path(sys.argv[1])

    def noted(self, paths, prompts, frames=0, longest=None):
        with notes.open("a") as handle:
            handle.write(f"{sum(map(len, prompts))}\n")
        return respond(self, paths, prompts, frames, longest)

    Responder.respond = noted
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(command(sys.argv[2:]))


if __name__ == "__main__":
    main()
