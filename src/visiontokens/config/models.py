"""The typed configuration: every setting of a run, its default (the `mini` scale) and its meaning.

`config/config.yaml` and `config/schema.json` are generated from these classes; a test catches drift.
Unknown keys are errors. Nothing in the package asks which scale is running: a scale is only other values.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from visiontokens.config.evaluation import EfficiencyConfig, EvaluateConfig, RedundancyConfig, SearchConfig
from visiontokens.config.section import Count, Fraction, RowSet, Section, Size
from visiontokens.config.training import TrainConfig
from visiontokens.config.world import BackbonesConfig, FeaturesConfig, FurtherConfig, VideoConfig, WorldConfig


class ExperimentsConfig(Section):
    """Which rows of the experiment table run."""

    table: Path = Path("config/experiments.tsv")
    """The table of experiments."""
    sets: list[RowSet] = ["main"]
    """Rows whose `set` is in this list run."""
    only: list[str] = []
    """If not empty: only these experiment ids (and the ones whose weights they use)."""
    seeds: Size = 1
    """Each trained row runs with seeds 0 … min(this, the row's `seeds`) - 1."""
    released: dict[str, Path] = {}
    """Trained rows whose weights are not trained here: experiment id -> folder with weights in transformers' layout."""


class LeaderboardConfig(Section):
    """The target `leaderboard`: the field's methods beside the main rows, in one table."""

    sets: list[RowSet] = ["main", "field"]
    """Rows of these sets are in it, with the settings of `experiments` otherwise (`only`, `released`)."""
    seeds: Size = 3
    """As `experiments.seeds`, for the leaderboard."""
    tolerance: Fraction = 0.15
    """A row is compared with the average-pooling row of the nearest budget if that differs by at most this share."""


class ReportConfig(Section):
    """Notebooks, tables and figures."""

    notebooks: list[str] = [
        "01_redundancy", "02_training", "03_main_results", "04_ablations", "05_efficiency", "06_errata",
    ]  # fmt: skip
    """Notebooks to execute, in order."""
    explorer_images: Count = 6
    """Test images of the token explorer, of the benchmarks in turn; 0 = no explorer."""
    explorer_questions: Size = 3
    """Questions about each of them."""


class DownloadsConfig(Section):
    """Official data and weights, where a scale uses them (`data/registry.tsv`)."""

    registry: Path = Path("data/registry.tsv")
    """The table of files."""
    workers: Size = 4
    """Entries that `visiontokens download` fetches at a time."""
    attempts: Size = 8
    """Attempts in a row without a new byte before a download is given up."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds without an answer that end an attempt."""
    keep_archives: bool = False
    """Keep archives after they are extracted."""
    max_missing_images: Fraction = 0.001
    """Largest share of an annotation file's images that may be missing; their records are left out and listed."""


class PlanConfig(Section):
    """What `visiontokens plan` assumes; nothing else reads it."""

    device: str | None = None
    """Accelerator of the bill; null where the jobs run on the CPU."""
    tflops: float = Field(default=312.0, gt=0)
    """Its peak in 1e12 FLOPs per second, dense bf16 (312: A100)."""
    mfu: float = Field(default=0.25, gt=0, le=1)
    """Share of the peak that training and prefill reach; recomputed activations do not count as work."""
    gpus: Size = 8
    """GPUs at work at the same time, for the wall-clock time."""
    align_text: Size = 32
    """Mean text tokens of an alignment sample."""
    tune_text: Size = 256
    """Mean text tokens of an instruction sample."""
    question_text: Size = 80
    """Mean text tokens of a benchmark question with the system prompt."""
    answer_tokens: Size = 4
    """Mean tokens of an answer."""
    decode_ms: float = Field(default=25.0, gt=0)
    """Milliseconds per generated token, batch 1."""
    startup_minutes: float = Field(default=5.0, ge=0)
    """Minutes that a job on a GPU takes to load libraries and weights."""


class Config(Section):
    """Everything a run depends on."""

    scale: str = Field(default="mini", pattern=r"^[a-z][a-z0-9-]*$")
    """Name of the run's size; results go to `results/<scale>`, data lie in `data/world/<scale>`."""
    seed: Count = 0
    """Base of every seed that is not named elsewhere."""
    data: Path | None = None
    """Data folder, if not `data/world/<scale>`."""
    threads: Size = 1
    """Threads of one training or prediction job."""
    gpus: Count = 0
    """GPUs that a training job asks for, one process each (other model jobs ask for one); 0 = none is asked for and one
    process uses what is there."""
    world: WorldConfig | None = WorldConfig()
    """The generated world; null where the data are the official files."""
    video: VideoConfig = VideoConfig()
    """Videos, where a scale has some."""
    further: FurtherConfig = FurtherConfig()
    """Generated benchmarks beyond the nine of every world, where a scale asks for some."""
    backbones: BackbonesConfig = BackbonesConfig()
    """Vision tower and language model."""
    features: FeaturesConfig = FeaturesConfig()
    """Cached tower features."""
    train: TrainConfig = TrainConfig()
    """The two training stages."""
    experiments: ExperimentsConfig = ExperimentsConfig()
    """What is trained and evaluated."""
    leaderboard: LeaderboardConfig = LeaderboardConfig()
    """What the leaderboard trains and evaluates."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Prediction and scoring."""
    redundancy: RedundancyConfig = RedundancyConfig()
    """Redundancy analysis."""
    search: SearchConfig = SearchConfig()
    """Searched parameters of methods."""
    efficiency: EfficiencyConfig = EfficiencyConfig()
    """Latency and memory."""
    report: ReportConfig = ReportConfig()
    """Notebooks, tables and figures."""
    downloads: DownloadsConfig = DownloadsConfig()
    """Official data and weights."""
    plan: PlanConfig = PlanConfig()
    """Assumptions of the bill."""

    @property
    def data_dir(self) -> Path:
        """Folder of the data in official formats."""
        return self.data or Path("data/world") / self.scale

    @property
    def leaderboard_dir(self) -> Path:
        """Folder of what the leaderboard alone writes; models, predictions and scores lie with the others."""
        return self.results_dir / "leaderboard"

    @property
    def cache_dir(self) -> Path:
        """Folder of answers kept across runs; no result, and safe to remove."""
        return self.results_dir / "cache"

    def for_leaderboard(self) -> Config:
        """Return these settings with the leaderboard's rows and seeds as the experiments that run."""
        chosen = {"sets": self.leaderboard.sets, "seeds": self.leaderboard.seeds}
        return self.model_copy(update={"experiments": self.experiments.model_copy(update=chosen)})

    @property
    def results_dir(self) -> Path:
        """Folder of every result of this scale."""
        return Path("results") / self.scale
