"""Typed settings, the experiment table, and the files generated from both."""

from visiontokens.config.evaluation import (
    EfficiencyConfig,
    EvaluateConfig,
    JudgeConfig,
    RedundancyConfig,
    SearchConfig,
)
from visiontokens.config.load import ConfigError, load_config, parse_config
from visiontokens.config.locate import config_folder, in_checkout
from visiontokens.config.models import (
    Config,
    DownloadsConfig,
    ExperimentsConfig,
    LeaderboardConfig,
    PlanConfig,
    ReportConfig,
)
from visiontokens.config.tables import (
    BenchmarkRow,
    Experiment,
    PoolingPoint,
    load_benchmarks,
    load_experiments,
    load_pooling,
    read_experiments,
    searched_rows,
    seeds_of,
    weights_root,
)
from visiontokens.config.training import (
    AlignConfig,
    LoraSettings,
    TrainConfig,
    TrainStageConfig,
    TuneConfig,
)
from visiontokens.config.world import (
    BackbonesConfig,
    ClipsConfig,
    FeaturesConfig,
    FurtherConfig,
    TowerPretrainConfig,
    VideoConfig,
    WorldConfig,
)

__all__ = [
    "AlignConfig",
    "BackbonesConfig",
    "BenchmarkRow",
    "ClipsConfig",
    "Config",
    "ConfigError",
    "DownloadsConfig",
    "EfficiencyConfig",
    "EvaluateConfig",
    "Experiment",
    "ExperimentsConfig",
    "FeaturesConfig",
    "FurtherConfig",
    "JudgeConfig",
    "LeaderboardConfig",
    "LoraSettings",
    "PlanConfig",
    "PoolingPoint",
    "RedundancyConfig",
    "ReportConfig",
    "SearchConfig",
    "TowerPretrainConfig",
    "TrainConfig",
    "TrainStageConfig",
    "TuneConfig",
    "VideoConfig",
    "WorldConfig",
    "config_folder",
    "in_checkout",
    "load_benchmarks",
    "load_config",
    "load_experiments",
    "load_pooling",
    "parse_config",
    "read_experiments",
    "searched_rows",
    "seeds_of",
    "weights_root",
]
