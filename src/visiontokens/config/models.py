"""The typed configuration: every setting of a run, its default (the `mini` scale) and its meaning.

`config/config.yaml` and `config/schema.json` are generated from these classes; a test catches drift.
Unknown keys are errors. Nothing in the package asks which scale is running: a scale is only other values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
RowSet = Literal["main", "full", "field", "video", "13b"]
"""Groups of experiments: main tables, all rows of both papers, the other systems of the field, video, 13B."""


class Section(BaseModel):
    """A part of the configuration: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class WorldConfig(Section):
    """Sizes of the generated world (`data/miniworld`); every split is disjoint by scene and by digit instance."""

    seed: Count = 0
    """Root of every random stream of the world."""
    pretrain: Size = 1600
    """Caption records (one image each) of the alignment stage."""
    instruct: Size = 2000
    """Instruction records with an image (one image each)."""
    text_only: Count = 200
    """Instruction records without an image."""
    validation_images: Size = 400
    """Held-out images on which every choice is made."""
    validation_questions: Size = 8
    """Questions per validation image."""
    vqav2_questions: Size = 1200
    """VQAv2-style questions."""
    vqav2_images: Size = 300
    """Images they share."""
    gqa_questions: Size = 1200
    """GQA-style questions."""
    gqa_images: Size = 300
    """Images they share."""
    vizwiz_questions: Size = 1000
    """VizWiz-style questions, one image each (blurred, cropped, unanswerable)."""
    scienceqa_image: Size = 600
    """ScienceQA-style problems with an image."""
    scienceqa_text: Count = 500
    """ScienceQA-style problems without one."""
    textvqa_questions: Size = 1000
    """TextVQA-style questions, 1.6 to an image."""
    pope_questions: Size = 600
    """POPE rows in each of the three files (random, popular, adversarial)."""
    mme_lines: Size = 84
    """Lines in each of the 14 MME task files; two lines belong to one image."""
    mmbench_questions: Size = 1000
    """Base questions of MMBench and of MMBench-CN; circular rotations come on top."""


class ClipsConfig(Section):
    """Sizes of the generated clips, which lie beside the world's images and share none of their random streams."""

    seed: Count = 0
    """Root of every random stream of the clips."""
    length: int = Field(default=16, ge=4)
    """Frames of a clip's file; a model reads `video.frames` of them."""
    train: Size = 240
    """Training clips, each with all its questions in one record."""
    images: Count = 480
    """Image records of the instruction mix that are trained on beside the clips."""
    questions: Size = 8
    """Questions per training clip."""
    msvd_questions: Size = 400
    """MSVD-QA-style questions."""
    msvd_videos: Size = 80
    """Clips they share."""
    activitynet_questions: Size = 400
    """ActivityNet-QA-style questions."""
    activitynet_videos: Size = 80
    """Clips they share."""


class FurtherConfig(Section):
    """Sizes of the generated benchmarks that only some scales ask for (by naming them in `evaluate.benchmarks`).

    They lie beside the world and share none of its random streams.
    """

    seed: Count = 0
    """Root of every random stream of these benchmarks."""
    seed_questions: Size = 720
    """SEED-Bench-style questions of nine types."""
    seed_images: Size = 240
    """Images they share."""
    mmmu_questions: Size = 520
    """MMMU-style questions of thirteen subjects; one or two images each."""
    mmvet_questions: Size = 240
    """MM-Vet-style questions, one image each."""


class VideoConfig(Section):
    """Videos: how many frames a model reads, where training clips lie, and what is generated."""

    frames: Size = 8
    """Frames of a video that a model reads, evenly spaced from the first to the last (Video-LLaVA: 8)."""
    videos: Path = Path("video/videos")
    """Folder that the `video` entries of training records are relative to, relative to the data folder."""
    clips: ClipsConfig | None = None
    """Sizes of the generated clips; null where a scale has no videos, or official ones."""


class TowerPretrainConfig(Section):
    """How the mini vision tower is made from nothing (`train/backbones/tower`)."""

    seed: Count = 0
    """Seeds weights and samples."""
    crop_steps: Count = 6000
    """Steps of dense patch labels on packed 48 px crops."""
    crop_batch: Size = 8
    """Crops per step (small batches learn digits several times faster per image than batches of 24)."""
    packed_steps: Count = 150
    """Steps of dense patch labels on packed whole images, so that attention meets the full grid."""
    packed_batch: Size = 4
    """Packed images per step."""
    contrastive_steps: Count = 300
    """Steps of image-caption contrast on whole scenes."""
    contrastive_batch: Size = 16
    """Scenes per contrastive step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak rate on crops; a third of it on packed images."""
    contrastive_rate: float = Field(default=1e-3, gt=0)
    """Peak rate of the contrastive phase."""
    dense_weight: float = Field(default=0.3, ge=0)
    """Weight of the dense loss in the contrastive phase."""
    dense_layers: Size = 5
    """The dense loss reads the output of this layer."""
    probe_images: Size = 600
    """Scenes for training and for testing the linear probes."""
    save_every: Count = 500
    """Steps between rolling checkpoints; 0 = none."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` = bf16 autocast where the processor computes it natively."""


class BackbonesConfig(Section):
    """Where the vision tower and the language model are (the mini ones are shipped with their records)."""

    tower: Path = Path("data/backbones/tower")
    """Folder of the CLIP vision tower."""
    llm: Path = Path("data/backbones/llm")
    """Folder of the LLaMA model with its tokenizer."""
    llm_layers: Size | None = None
    """Start from the language model's first so many decoder layers only, for models of several sizes; null = all."""
    pretrain_tower: TowerPretrainConfig = TowerPretrainConfig()
    """How the shipped tower was made."""


class FeaturesConfig(Section):
    """The frozen tower's hidden states, computed once per image set and memory-mapped."""

    levels: list[int] = [-2, 21, 18, 15, 12, 9, 6, 3]
    """Levels of a 24-block CLIP (scaled to the tower's depth) that some method reads; -2 is LLaVA's."""
    batch_size: Size = 64
    """Images per forward pass."""


Attention = Literal["auto", "sdpa", "flash_attention_2", "flash_attention_3"]


class LoraSettings(Section):
    """Low-rank adapters on every linear map of the decoder layers, merged into the weights at the end."""

    rank: Size = 128
    """Rank of the adapters (LLaVA's script: 128)."""
    alpha: Size = 256
    """Adapters are scaled by alpha / rank."""
    dropout: Fraction = 0.05
    """Dropout of the adapters' inputs."""


class TrainStageConfig(Section):
    """What the two training stages of LLaVA (align, then tune) have in common."""

    annotations: Path = Path("instruct/llava_v1_5_mix_mini.json")
    """LLaVA-format JSON, relative to the data folder."""
    images: Path = Path("instruct/images")
    """Folder the records' `image` entries are relative to, relative to the data folder."""
    image_set: str = "instruct"
    """Set in `images.tsv` whose cached features hold these images."""
    samples: Count = 0
    """Use the first so many records of the shuffled set; 0 = all."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the samples."""
    batch_size: Size = 16
    """Samples per optimizer step."""
    micro_batch_size: Size = 8
    """Samples per forward pass and process; gradients accumulate up to `batch_size` over all processes."""
    learning_rate: float = Field(default=1.5e-3, gt=0)
    """Peak of the cosine schedule."""
    connector_learning_rate: float | None = Field(default=None, gt=0)
    """Peak for projector and compressor (LLaVA's `mm_projector_lr`); null = the same."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps with linearly rising learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW weight decay."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradient clipping; 0 = off."""
    isolate_turns: bool = True
    """Turns of a conversation see the image and themselves only, as in single-turn evaluation."""
    caption_weight: float = Field(default=1.0, ge=0)
    """Loss weight of the tokens of a caption turn."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` = bf16 autocast where the device computes it natively."""
    saved_precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the final weights' file; the released checkpoints of both papers hold 16 bits."""
    attention: Attention = "auto"
    """Kernel: `auto` = flash attention where it is importable and right for device, dtype and method, else SDPA."""
    packing: bool = False
    """Join the samples of a micro-batch into one row without padding; they do not see each other."""
    gradient_checkpointing: bool = False
    """Keep only each decoder layer's input and compute the rest again in the backward pass."""
    tf32: bool = False
    """Let a GPU round the inputs of float32 matrix products to TF32."""
    lora: LoraSettings | None = None
    """Train adapters in place of the language model's weights; null = full fine-tuning."""
    save_every: Count = 100
    """Optimizer steps between rolling checkpoints; 0 = none."""
    deepspeed: Path | None = None
    """DeepSpeed configuration (`config/deepspeed`), for models that one device does not hold; null = plain data
    parallelism."""
    template: Literal["plain", "v1"] = "v1"
    """Prompt template of LLaVA-1.5."""


class AlignConfig(TrainStageConfig):
    """Stage 1: projector and compressor learn from captions; everything else is frozen."""

    annotations: Path = Path("pretrain/blip_laion_cc_sbu_mini.json")
    """LLaVA-format JSON, relative to the data folder."""
    images: Path = Path("pretrain/images")
    """Folder the records' `image` entries are relative to, relative to the data folder."""
    image_set: str = "pretrain"
    """Set in `images.tsv` whose cached features hold these images."""
    epochs: float = Field(default=2.0, gt=0)
    """Passes over the samples."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Peak of the cosine schedule."""
    warmup_ratio: Fraction = 0.15
    """Share of the steps that warms the rate up; with 0.03 at this rate the wide projectors of MBTF stop learning."""
    template: Literal["plain", "v1"] = "plain"
    """Prompt template of LLaVA-1.5."""


class TuneConfig(TrainStageConfig):
    """Stage 2: language model, projector and compressor learn from the instruction mix."""

    caption_weight: float = Field(default=0.3, ge=0)
    """Loss weight of the tokens of a caption turn."""


class TrainConfig(Section):
    """Both stages; the vision tower stays frozen throughout."""

    align: AlignConfig = AlignConfig()
    """Stage 1, on captions."""
    tune: TuneConfig = TuneConfig()
    """Stage 2, on instructions."""


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


class JudgeConfig(Section):
    """A language model that judges answers, behind an endpoint that speaks OpenAI's chat completions."""

    url: str = Field(pattern=r"^https?://")
    """Address up to the version, such as `https://api.openai.com/v1`."""
    model: str = Field(min_length=1)
    """Name of the model there; with the address it is the judge's id."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; none is sent where it is not set."""
    benchmarks: list[str] = ["mmvet", "llava_bench"]
    """Benchmarks whose answers it judges in the workflow; video sets that are not listed stay with exact match."""
    runs: Size = 1
    """Times that every answer is judged (MM-Vet's paper: 5; LLaVA-Bench: 3)."""
    attempts: Size = 6
    """Tries of a request that fails for want of an answer."""
    backoff: float = Field(default=1.0, ge=0)
    """Seconds before the second try; doubled for each further one, up to a minute."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds without an answer that end a try."""
    cache: Path = Path("data/judge/replies.jsonl")
    """Replies by hash of (judge, prompt, decoding), one a line; a reply is paid for once."""


class EvaluateConfig(Section):
    """Prediction and scoring."""

    benchmarks: list[str] = [
        "vqav2", "gqa", "vizwiz", "scienceqa", "textvqa", "pope", "mme", "mmbench", "mmbench_cn",
    ]  # fmt: skip
    """Benchmarks by name (`config/benchmarks.tsv`)."""
    batch_size: Size = 32
    """Questions per forward pass; part of a prediction's identity."""
    max_new_tokens: Size = 16
    """Greedy decoding stops here at the latest."""
    limit: Count = 0
    """Only the first so many questions of each benchmark; 0 = all."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` = bf16 autocast where the device computes it natively."""
    attention: Attention = "auto"
    """Kernel, as in training."""
    cache: bool = False
    """Keep answers in `results/<scale>/cache`, by hash of weights, method, prompt, image, decoding and code, and look
    there first; with `batch_size` 1 only, where an answer does not depend on the questions beside it."""
    bootstrap: Size = 2000
    """Resamples for each confidence interval."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Level of the confidence intervals."""
    policy: Literal["official", "correct"] = "correct"
    """Where an official script has a quirk: as it computes, or what it means to compute. A score shows both."""
    judge: JudgeConfig | None = None
    """Who judges free answers; null: an offline stand-in, whose scores no table takes."""

    @model_validator(mode="after")
    def _cached_one_by_one(self) -> EvaluateConfig:
        if self.cache and self.batch_size != 1:
            raise ValueError(f"batch_size: expected 1 with cache: true, found {self.batch_size}")
        return self


class RedundancyConfig(Section):
    """LLaVolta Fig. 1: pooling at test time on the un-retrained baseline."""

    table: Path = Path("config/pooling.tsv")
    """Grid of (layer of 32, stride) points."""
    model: str = "none"
    """Experiment whose weights are probed."""
    benchmarks: list[str] = ["gqa", "textvqa", "pope", "mmbench"]
    """Benchmarks of the curve."""
    limit: Count = 400
    """Questions per benchmark and point; 0 = all."""
    attention_images: Size = 64
    """Images for the attention statistics."""
    similarity_images: Size = 200
    """Images for the feature-similarity statistics."""
    probe_images: Size = 400
    """Images for the linear probes of the tower's layers."""


class SearchConfig(Section):
    """Searching a method's parameters (G-Search, P-Sigmoid) on questions of the instruction data, never of a test."""

    questions: Size = 500
    """Calibration questions, one an image."""
    grid: Size = 16
    """G-Search: steps of a layer's share of tokens."""
    trials: Size = 30
    """P-Sigmoid: schedules that the Bayesian optimisation tries."""


class EfficiencyConfig(Section):
    """Measured prefill latency and peak memory."""

    repeats: Size = 20
    """Timed prefills per measurement."""
    warmup: Count = 3
    """Untimed prefills before them."""
    text_tokens: Size = 40
    """Length of the question in the timed prompt."""
    frames: Size = 1
    """Frames of the timed prompt: 1 is an image, more are a video."""


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
