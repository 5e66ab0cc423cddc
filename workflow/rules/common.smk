"""Settings, the experiment table, and the helpers of every rule file (which hold rules only)."""

import re
import sys
from pathlib import Path

from visiontokens.config import (
    load_benchmarks,
    load_config,
    load_experiments,
    parse_config,
    searched_rows,
    seeds_of,
    weights_root,
)
from visiontokens.config.generate import write_resolved
from visiontokens.data.benchmarks import FURTHER_SET, find_benchmark
from visiontokens.data.registry import WEIGHTS, destination, needed, read_registry
from visiontokens.data.videos import VIDEO_SETS
from visiontokens.provenance import sha256_file
from visiontokens.sources import assets, fingerprint, imports, method_module, reads_class_token

ENVIRONMENT = "../../environment.yml"
load_config(workflow.configfiles)  # an error names the file
SETTINGS = parse_config(config, "--config")
EXPERIMENTS = load_experiments(SETTINGS)
LEADERBOARD = SETTINGS.for_leaderboard()
LEADERBOARD_ROWS = load_experiments(LEADERBOARD)
ROWS = {**EXPERIMENTS, **LEADERBOARD_ROWS}  # whatever a job may be asked for; rows of `all` first
BENCHMARKS = list(load_benchmarks(SETTINGS))
OFFICIAL = SETTINGS.world is None  # official files instead of a generated world
RELEASED = SETTINGS.experiments.released
TRAINED = [name for name, row in EXPERIMENTS.items() if row.trained and name not in RELEASED]
SEARCHED = searched_rows(SETTINGS, ROWS)
NOTEBOOKS = SETTINGS.report.notebooks
VIDEOS = [name for name in BENCHMARKS if find_benchmark(name).video]
CLIPS = SETTINGS.video.clips is not None  # a generated world with clips: they are trained on, too
TRAIN_VIDEOS = ["video"] if CLIPS else []
TEST_SETS = list(dict.fromkeys(find_benchmark(name).test_set for name in BENCHMARKS))
IMAGE_TEST_SETS = [name for name in TEST_SETS if name not in VIDEO_SETS]
FURTHER = [name for name in BENCHMARKS if find_benchmark(name).test_set == FURTHER_SET]  # written beside the world
FURTHER_RECORD = [f"{SETTINGS.data_dir}/further.json"] if FURTHER and not OFFICIAL else []
READS_CLASS = any(reads_class_token(row.method) for row in EXPERIMENTS.values())
EXPLORED = SETTINGS.report.explorer_images > 0 and "test" in TEST_SETS
DOWNLOADS = needed(SETTINGS, read_registry(SETTINGS.downloads.registry))  # none where the data are generated
FOLDERS = {str(destination(entry, SETTINGS)): name for name, entry in DOWNLOADS.items() if entry.role in WEIGHTS}
RESULTS = str(SETTINGS.results_dir)
DATA = str(SETTINGS.data_dir)

# The jobs read the resolved settings from a plain file that no job makes. Below a job that runs, Snakemake does not
# compare parameters, not even across ancient(): made by a job, a changed setting would re-run that job and hide itself.
# Data that scales share have a file of their own, or one scale would make again what another has made.
SETTINGS_FILES = {
    SETTINGS.results_dir / "config.yaml": SETTINGS,
    SETTINGS.data_dir / "config.yaml": SETTINGS,
    SETTINGS.leaderboard_dir / "config.yaml": LEADERBOARD,
}


def write_settings(only_missing=False):
    """Write the resolved settings that the jobs read."""
    for path, settings in SETTINGS_FILES.items():
        if not (only_missing and path.exists()):
            write_resolved(settings, path)


write_settings(only_missing=True)


# What stands for the weights of a backbone: the file, or the receipt of its download.
WEIGHTS_FILE = "download.json" if OFFICIAL else "model.safetensors"


pathvars:
    results=RESULTS,
    data=DATA,
    logs=f"{RESULTS}/logs",
    benchmarks=f"{RESULTS}/benchmarks",
    tower=str(SETTINGS.backbones.tower),
    llm=str(SETTINGS.backbones.llm),


wildcard_constraints:
    experiment=r"[a-z0-9][a-z0-9.-]*",
    seed=r"\d+",
    benchmark=r"[a-z0-9_]+",
    notebook=r"\d\d_[a-z_]+",
    set=r"[a-z]+",


def section(name, *keys):
    """Return one part of the settings (or some keys of it) as plain values.

    Into params belongs what the job reads and nothing else, because changed params run it again.
    """
    plain = SETTINGS.model_dump(mode="json")[name]
    return {key: plain[key] for key in keys} if keys else plain


def code(*modules, methods=()):
    """Return the hash of the code a rule runs, so that an edit of it (not of comments) re-runs the rule."""
    return fingerprint([*modules, *map(method_module, methods)])


def digests(*names):
    """Return hashes of those results that are there: a job that shows them runs again when they change.

    As inputs they would be made, too.
    """
    found = {name: SETTINGS.results_dir / name for name in names}
    return {name: sha256_file(path) for name, path in found.items() if path.is_file()}


def runs(pattern, experiments=tuple(EXPERIMENTS), benchmarks=("",)):
    """Fill `{experiment}` and `{seed}`, and `{benchmark}` if asked, for every run of the given experiments."""
    return filled(pattern, SETTINGS, experiments, benchmarks)


def leaderboard_runs(pattern, benchmarks=("",)):
    """Fill a path for every run of the leaderboard, as `runs` does."""
    return filled(pattern, LEADERBOARD, LEADERBOARD_ROWS, benchmarks)


def filled(pattern, settings, experiments, benchmarks):
    """Return a path for every seed that the settings give to each of these experiments, and every benchmark."""
    return [
        pattern.format(experiment=name, seed=seed, benchmark=benchmark)
        for name in experiments
        for seed in seeds_of(settings, ROWS, name)
        for benchmark in benchmarks
    ]


def each_benchmark(pattern):
    """Fill `{benchmark}` in a path for every benchmark and leave the wildcards."""
    return [pattern.replace("{benchmark}", benchmark) for benchmark in BENCHMARKS]


def trained(stage, name):
    """Return the path of a file that one training stage writes, for use in a rule."""
    return f"<results>/models/{{experiment}}/seed{{seed}}/{stage}/{name}"


def method_file(name):
    """Return the description of a method."""
    return f"config/methods/{name}.yaml"


def train_method_file(wildcards):
    """Return the description of the method a run trains with."""
    return method_file(ROWS[wildcards.experiment].train_method)


def test_method_file(wildcards):
    """Return the description of the method a run is evaluated with."""
    return method_file(ROWS[wildcards.experiment].method)


def schedule_file(wildcards):
    """Return the stage schedule of a run, if it has one."""
    schedule = ROWS[wildcards.experiment].schedule
    return [f"config/schedules/{schedule}.yaml"] if schedule else []


def alignment(wildcards):
    """Return the aligned weights a tune run starts from: experiments with one training method share an alignment."""
    method = ROWS[wildcards.experiment].train_method
    rows = ((name, row) for name, row in ROWS.items() if row.trained and name not in RELEASED)
    name = next(name for name, row in rows if row.train_method == method)
    return f"{RESULTS}/models/{name}/seed{wildcards.seed}/align/model.safetensors"


def weights_of(name, seed):
    """Return what stands for an experiment's weights: its own, another experiment's, or released ones."""
    root = weights_root(ROWS, name)
    if root in RELEASED:
        return f"{RELEASED[root]}/download.json"
    return f"{RESULTS}/models/{root}/seed{seed}/tune/model.safetensors"


def final_weights(wildcards):
    """Return the weights a row is evaluated with."""
    return weights_of(wildcards.experiment, wildcards.seed)


def search_result(wildcards):
    """Return the result of the search that completes a run's method, if it asks for one."""
    name = wildcards.experiment
    return [f"{RESULTS}/search/{name}.json"] if name in SEARCHED else []


def search_results(rows):
    """Return the results of the searches that complete the methods of some rows."""
    return [f"{RESULTS}/search/{name}.json" for name in rows if name in SEARCHED]


def cached(*sets):
    """Return the cached features of image sets; official images are read as they are."""
    return [] if OFFICIAL else [f"{DATA}/features/{name}/index.json" for name in sets]


def listing(wildcards):
    """Return the table of a set's images or videos, and the record that is written after it."""
    if wildcards.set in VIDEO_SETS:
        return {"images": f"{DATA}/videos.tsv", "world": f"{DATA}/clips.json"}
    if wildcards.set == FURTHER_SET:
        return {"images": f"{DATA}/further.tsv", "world": f"{DATA}/further.json"}
    return {"images": f"{DATA}/images.tsv", "world": f"{DATA}/world.json"}


def class_tokens(column, *sets):
    """Return a function of the wildcards: the class tokens of image sets, where the row's method reads them."""
    beside = cached(*(f"{name}.class" for name in sets))
    return lambda wildcards: (beside if reads_class_token(getattr(ROWS[wildcards.experiment], column)) else [])


def receipts(*readers):
    """Return the receipts of the official data that training stages or benchmarks read."""
    return [
        f"<data>/downloads/{name}.json"
        for name, entry in DOWNLOADS.items()
        if entry.role not in WEIGHTS and set(readers) & set(entry.used_by)
    ]


def registered(name):
    """Return an entry of the registry as plain values: a changed one is fetched or checked again."""
    return DOWNLOADS[name].model_dump(mode="json", exclude={"note", "size_gb"})


def train_code(wildcards):
    """Return the hash of the training code with the run's method."""
    return code("train.trainer", methods=[ROWS[wildcards.experiment].train_method])


def test_code(entry):
    """Return a function of the wildcards: the hash of an evaluation module's code with the row's method."""
    return lambda wildcards: code(entry, methods=[ROWS[wildcards.experiment].method])


def notebook_code(wildcards):
    """Return the hash of the code a notebook runs."""
    return code("report.render", *imports(Path(f"notebooks/{wildcards.notebook}.ipynb")))


def longest_first(wildcards):
    """Return a priority: the redundancy analysis waits for the baseline, and training without compression is long."""
    if wildcards.experiment == SETTINGS.redundancy.model:
        return 80
    return 70 if ROWS[wildcards.experiment].train_method == "none" else 60


def gpus(most):
    """Return a job's GPU request: none where the settings ask for none, so that nothing waits for a GPU locally."""
    return min(most, SETTINGS.gpus)


def launched(verb, arguments, shutdown=30):
    """Return the shell command of a verb on as many GPUs as the job has.

    Several GPUs are one process each, below torchrun, which passes signals on and waits `shutdown` seconds.
    """
    return (
        "start=visiontokens; if [ {resources.gpu} -gt 1 ]; then start="
        f'"torchrun --standalone --nproc-per-node {{resources.gpu}} --shutdown-timeout {shutdown} -m visiontokens"; fi;'
        f" $start {verb} {arguments} 2>&1 | tee {{log}} >&2"
    )


def training(arguments):
    """Return the shell command of a training.

    SIGTERM ahead of a time limit reaches every process of a job; shell and tee must outlive the training, which
    answers it with a checkpoint.
    """
    return f"trap '' TERM; {launched('train', arguments, shutdown=270)}"


def announce():
    """Print the summary table and where to look next."""
    summary, page = Path(RESULTS, "paper/summary.txt"), Path(RESULTS, "site/index.html")
    if summary.is_file() and page.is_file():
        text = f"\n{summary.read_text(encoding='utf-8')}\nTables and figures: open {page}"
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding))  # not every locale can show a plus-minus
