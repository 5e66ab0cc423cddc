"""The figures of the report; every function takes tidy frames and returns a matplotlib figure."""

from visiontokens.report.figures.ablation import ablation_bars
from visiontokens.report.figures.efficiency import pareto
from visiontokens.report.figures.inside import attention_by_layer, feature_similarity, tower_probe
from visiontokens.report.figures.radar import radar
from visiontokens.report.figures.redundancy import redundancy_curves
from visiontokens.report.figures.scaling import scaling_figure
from visiontokens.report.figures.training import training_curves

__all__ = [
    "ablation_bars",
    "attention_by_layer",
    "feature_similarity",
    "pareto",
    "radar",
    "redundancy_curves",
    "scaling_figure",
    "tower_probe",
    "training_curves",
]
