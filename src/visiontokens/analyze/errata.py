"""The analytic columns of LLaVolta's tables, recomputed and held against what is printed.

Every line of the errata states the printed value, the recomputed one, the arithmetic and a verdict (`recount`).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from visiontokens.analyze.headlines import headlines
from visiontokens.analyze.recount import (
    DIFFERS,
    FULL,
    MATCHES,
    N_VISION,
    Erratum,
    cells_of,
    judge,
    pool_text,
    pooled_total,
    ratio_of,
    scheme_of,
    stages,
    tflops_line,
)
from visiontokens.analyze.reference import REFERENCE, reference

SCORES = (
    "gqa", "mmvet", "scienceqa", "mme", "textvqa", "pope", "mmbench", "mmbench_cn", "vqav2", "llava_w", "vizwiz",
    "seed_image", "mmmu",
)  # fmt: skip
"""The 13 columns that LLaVolta averages."""
MME_DIVISOR = 20
AVERAGE_TOLERANCE = 0.066
"""Half a last digit, and two standard deviations of what the 13 columns' own rounding adds (0.008 each)."""
LAYERS_OF = {"6": 40, "10": 18}
"""Decoder layers of the other models: Vicuna-13B (Table 6) and Gemma-2B (Table 10); general knowledge, not printed."""
SLIPS = {
    "Two stages": "the printed number results with 18 compressed tokens instead of 72",
    "Three stages, deeper": "the printed number results with a weight of 0.33 per stage instead of 1/3",
    "Three stages, wider": "the printed number results with a weight of 0.33 per stage instead of 1/3",
    "Four stages, wider then deeper": "the printed number results with 2*576 + 16*72 in stage 1",
    "Four stages, deeper then wider": "the printed number results with 18 compressed tokens instead of 72",
}
"""What reproduces Table 2's wrong token counts exactly; its TFLOPs column has the right ones."""
PROGRESSIVE = ((4, 1), (8, 2), (12, 4), (8, 8))
"""Table 7, layer-wise progressive compression: (number of layers, stride) from the first layer on."""


def table1(folder: Path = REFERENCE) -> list[Erratum]:
    """Recompute the compression ratio of every stage of Table 1, and the 556 that Table 3 prints for (2, 8)."""
    printed, lines = cells_of("1", folder), []
    for row, points in stages(folder).items():
        for i, (layer, stride) in enumerate(points, 1):
            cell = float(printed[row, f"stage{i}_cr_percent"])
            value, text, verdict = ratio_of(cell, pooled_total(layer, stride))
            note = "truncated" if verdict == MATCHES and cell < value - 0.5 else ""
            lines.append(Erratum("volta", "1", row, f"CR of stage {i} (%)", cell, value, text, verdict, note))
    cell = float(cells_of("3", folder)["Average pooling (test only)", "cr_percent"])
    value, text, verdict = ratio_of(cell, pooled_total(2, 8))
    note = "truncated; Tables 1 and 5 print 557 for the same setting"
    lines.append(Erratum("volta", "3", "all rows at (2,8)", "CR (%)", cell, value, text, verdict, note))
    return lines


def table2(folder: Path = REFERENCE) -> list[Erratum]:
    """Recompute tokens, CR and both TFLOPs columns of Table 2 from the stages of Table 1."""
    printed, lines = cells_of("2", folder), []
    for row, points in stages(folder).items():
        scheme = scheme_of(points)
        tokens = float(printed[row, "tokens"])
        verdict = judge(tokens, scheme.tokens, 0.5)
        note = SLIPS.get(row, "") if verdict == DIFFERS else ""
        lines.append(Erratum("volta", "2", row, "#Tokens", tokens, scheme.tokens, scheme.arithmetic, verdict, note))
        if (row, "cr_percent") in printed:
            cell = float(printed[row, "cr_percent"])
            value, text, verdict = ratio_of(cell, scheme.tokens)
            note = "" if verdict == MATCHES else f"follows from the printed tokens: {100 * FULL / tokens:.1f}"
            lines.append(Erratum("volta", "2", row, "CR (%)", cell, value, text, verdict, note))
        if (row, "tflops_stage_average") in printed:
            cell = float(printed[row, "tflops_stage_average"])
            lines.append(tflops_line("2", row, "TFLOPs, stage mean (arXiv v1)", cell, scheme.tokens))
        final = pooled_total(*points[-1])
        lines.append(tflops_line("2", row, "TFLOPs at test time", float(printed[row, "tflops"]), final))
    return lines


def table5(folder: Path = REFERENCE) -> list[Erratum]:
    """Recompute tokens, CR and TFLOPs of Table 5's constant pools."""
    printed, lines = cells_of("5", folder), []
    for row in dict.fromkeys(printed.index.get_level_values("row")):
        layer, stride = (int(n) for n in row.strip("()").split(",")) if row.startswith("(") else (0, 1)
        tokens, cell = pooled_total(layer, stride), float(printed[row, "tokens"])
        text = pool_text(layer, stride).strip("()")
        lines.append(Erratum("volta", "5", row, "#Tokens", cell, tokens, text, judge(cell, tokens, 0.5)))
        if (row, "cr_percent") in printed:
            cell = float(printed[row, "cr_percent"])
            value, text, verdict = ratio_of(cell, tokens)
            lines.append(Erratum("volta", "5", row, "CR (%)", cell, value, text, verdict))
        lines.append(tflops_line("5", row, "TFLOPs", float(printed[row, "tflops"]), tokens))
    return lines


def table7(folder: Path = REFERENCE) -> list[Erratum]:
    """Recompute the compression ratios of Table 7, whose two labels are swapped and whose (8, 8) is a (8, 6)."""
    printed, lines = cells_of("7", folder), []
    multi = sum(n * N_VISION // stride for n, stride in PROGRESSIVE)
    multi_text = " + ".join(f"{n}*{N_VISION // stride}" for n, stride in PROGRESSIVE)
    for row in dict.fromkeys(printed.index.get_level_values("row")):
        single = row.startswith("Single")
        tokens = pooled_total(8, 8) if single else multi
        cell = float(printed[row, "cr_percent"])
        value, _, verdict = ratio_of(cell, tokens)
        text = f"100 * {FULL} / ({'8*576 + 24*72' if single else multi_text})"
        note = "the stated (8,8); (8,6) would give 6912 tokens = 266.7%" if single else f"{multi} tokens"
        note += "; the labels 266 and 267 are swapped"
        lines.append(Erratum("volta", "7", row, "CR (%)", cell, value, text, verdict, note))
    return lines


def table9(folder: Path = REFERENCE) -> list[Erratum]:
    """Recompute tokens and CR of Table 9's two-stage splits, printed as copies of Table 2's columns."""
    printed, lines = cells_of("9", folder), []
    for row in dict.fromkeys(printed.index.get_level_values("row")):
        share = int(row.split("/")[0])
        tokens = (share * pooled_total(2, 8) + (100 - share) * FULL) / 100
        text = f"{share}% * {pooled_total(2, 8)} + {100 - share}% * {FULL}"
        cell = float(printed[row, "tokens"])
        verdict = judge(cell, tokens, 0.5)
        note = "" if verdict == MATCHES else "copied from Table 2's column"
        lines.append(Erratum("volta", "9", row, "#Tokens", cell, tokens, text, verdict, note))
        if (row, "cr_percent") in printed:
            cell = float(printed[row, "cr_percent"])
            value, text, verdict = ratio_of(cell, tokens)
            lines.append(Erratum("volta", "9", row, "CR (%)", cell, value, text, verdict, note))
    return lines


def other_depths(folder: Path = REFERENCE) -> list[Erratum]:
    """Recompute the tokens of Tables 6 and 10, which repeat the 32-layer counts for models of other depths."""
    lines = []
    for table, layers in LAYERS_OF.items():
        printed = cells_of(table, folder)
        for row in dict.fromkeys(printed.index.get_level_values("row")):
            if (row, "tokens") not in printed:
                continue
            totals = [pooled_total(layer, stride, layers) for layer, stride in stages(folder)[row]]
            tokens, cell = sum(totals) / len(totals), float(printed[row, "tokens"])
            text = f"({' + '.join(map(str, totals))}) / {len(totals)}"
            note = f"{layers} layers; CR would be {100 * layers * N_VISION / tokens:.1f}%"
            lines.append(Erratum("volta", table, row, "#Tokens", cell, tokens, text, judge(cell, tokens, 0.5), note))
    return lines


def figure1(folder: Path = REFERENCE) -> list[Erratum]:
    """Recompute the share of tokens kept at every point of Figure 1, left."""
    printed, lines = cells_of("fig1_left", folder), []
    for row in dict.fromkeys(printed.index.get_level_values("row")):
        layer, stride = (int(n) for n in row.strip("()").split(",")) if row.startswith("(") else (0, 1)
        value, cell = 100 * pooled_total(layer, stride) / FULL, float(printed[row, "kept_percent"])
        text, verdict = f"100 * {pool_text(layer, stride)} / {FULL}", judge(cell, value, 0.1)
        lines.append(Erratum("volta", "fig1_left", row, "tokens kept (%)", cell, value, text, verdict))
    return lines


def averages(folder: Path = REFERENCE) -> list[Erratum]:
    """Recompute every printed average of the 13 columns, MME divided by 20."""
    lines = []
    for table in ("2", "3", "4", "5", "6", "7", "10"):
        printed = cells_of(table, folder)
        for row in dict.fromkeys(printed.index.get_level_values("row")):
            values = [float(printed[row, name]) / (MME_DIVISOR if name == "mme" else 1) for name in SCORES]
            mean, cell = sum(values) / len(values), float(printed[row, "average"])
            text = f"{sum(values):.2f} / {len(values)}"
            verdict = judge(cell, mean, AVERAGE_TOLERANCE)
            lines.append(Erratum("volta", table, row, "Avg", cell, mean, text, verdict))
    return lines


def between_sources(folder: Path = REFERENCE) -> list[Erratum]:
    """Return numbers of one model that two places of a paper print differently: LLaVA-STF's GQA."""
    row, column = "STF + MBTF (25%)", "gqa"
    figure, readme = (
        reference("stf", table, folder).set_index(["row", "column"])["value"][row, column] for table in ("fig1", "2")
    )
    verdict = judge(figure, readme, 0.0)
    text = "Figure 1 against the README of the release"
    return [Erratum("stf", "fig1", row, "GQA (second value: README)", float(figure), float(readme), text, verdict)]


def errata(folder: Path = REFERENCE) -> pd.DataFrame:
    """Return the whole errata table: one line per recomputed number, matching or not."""
    lines = [
        *table1(folder), *table2(folder), *table5(folder), *table7(folder), *table9(folder),
        *other_depths(folder), *figure1(folder), *headlines(folder), *averages(folder), *between_sources(folder),
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=list(Erratum._fields))
