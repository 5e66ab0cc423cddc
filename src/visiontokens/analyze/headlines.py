"""Errata, continued: headline percentages, the tables of other compressors, video, and LLaVA-STF's sizes."""

from __future__ import annotations

from pathlib import Path

from visiontokens.analyze.recount import (
    DIFFERS,
    FULL,
    MATCHES,
    N_LAYERS,
    N_VISION,
    Erratum,
    cells_of,
    judge,
    pool_text,
    pooled_total,
    ratio_of,
    scheme_of,
    stages,
)
from visiontokens.analyze.reference import REFERENCE
from visiontokens.measure.flops import LLAVOLTA_TFLOPS_PER_TOKEN

FRAMES = 8
VCC_TOKENS = 81
"""What is left of 576 tokens by the VIP-token method of Table 3 (from its printed ratio)."""
QUERIES = 32
"""Table 4: the Q-Former's queries, read in every layer."""
CLIP, LLM, BLOCKS, WIDTH = 1024, 4096, 8, 16
"""Channels of the vision tower and of the language model; LLaVA-STF's fused blocks and the width of its projector."""


def headlines(folder: Path = REFERENCE) -> list[Erratum]:
    """Return every line of this module."""
    return [*savings(folder), *redundancy(folder), *compressors(folder), *video(folder), *fusion(folder)]


def savings(folder: Path = REFERENCE) -> list[Erratum]:
    """Recompute the percentages of abstract and captions from Table 2's hours and milliseconds."""
    table, claims = cells_of("2", folder), cells_of("headline", folder)
    lines = []
    for cell, row, column, what in (
        ("training_time_saved_percent", "Two stages", "train_hours", "training time saved (%)"),
        ("training_time_saved_last_stage_percent", "Three stages, last stage compression", "train_hours",
         "training time saved, last stage compressed (%)"),
        ("figure3_saved_percent", "Three stages, last stage compression", "train_hours",
         "training time saved, caption of Figure 3, at least (%)"),
        ("latency_saved_percent", "Three stages, last stage compression", "latency_ms", "latency saved (%)"),
    ):  # fmt: skip
        before, after = float(table["No compression", column]), float(table[row, column])
        value, printed = 100 * (before - after) / before, float(claims["claims", cell])
        verdict = judge(printed, value, 0.5)
        if cell == "figure3_saved_percent":
            verdict = MATCHES if value >= printed else DIFFERS
        text = f"100 * ({before:g} - {after:g}) / {before:g}"
        lines.append(Erratum("volta", "headline", row, what, printed, value, text, verdict))
    return lines


def redundancy(folder: Path = REFERENCE) -> list[Erratum]:
    """Recompute what the abstract says of Figure 1, at the two settings that the text names for it."""
    claims, points = cells_of("headline", folder), cells_of("fig1_left", folder)
    removed = float(claims["claims", "redundancy_tokens_removed_percent"])
    drop = float(claims["claims", "redundancy_gqa_drop_percent"])
    full, lines = float(points["No compression", "gqa"]), []
    for layer, stride, where in ((2, 4, "figure and introduction"), (16, 4, "section 4.2")):
        row = f"({layer},{stride}), as said in {where}"
        value = 100 - 100 * pooled_total(layer, stride) / FULL
        text, verdict = f"100 - 100 * {pool_text(layer, stride)} / {FULL}", judge(removed, value, 0.5)
        lines.append(Erratum("volta", "headline", row, "tokens removed (%)", removed, value, text, verdict))
        left = float(points[f"({layer},{stride})", "gqa"])
        verdict, note = judge(drop, full - left, 0.5), "the figure's points are digitised"
        text = f"{full:g} - {left:g}"
        lines.append(Erratum("volta", "headline", row, "GQA lost (points)", drop, full - left, text, verdict, note))
    return lines


def compressors(folder: Path = REFERENCE) -> list[Erratum]:
    """Recompute tokens and ratios of Table 3's VIP tokens and of Table 4."""
    lines = []
    pooled = f"2*{N_VISION} + {N_LAYERS - 2}"
    rows = [
        ("3", row, pooled_total(2, 8), f"{pooled}*{N_VISION // 8}")
        for row in dict.fromkeys(cells_of("3", folder).index.get_level_values("row"))
        if not row.startswith("VCC")
    ]
    rows += [
        ("3", f"VCC ({when})", 2 * N_VISION + (N_LAYERS - 2) * VCC_TOKENS, f"{pooled}*{VCC_TOKENS}")
        for when in ("test only", "train and test")
    ]
    rows.append(("4", "Q-Former", QUERIES * N_LAYERS, f"{QUERIES}*{N_LAYERS}"))
    rows.append(("4", "Average pooling (1,64)", pooled_total(1, 64), f"{N_VISION} + {N_LAYERS - 1}*{N_VISION // 64}"))
    for table, row, tokens, text in rows:
        printed = cells_of(table, folder)
        cell = float(printed[row, "tokens"])
        lines.append(Erratum("volta", table, row, "#Tokens", cell, tokens, text, judge(cell, tokens, 0.5)))
        if table == "4" or row.startswith("VCC"):
            cell = float(printed[row, "cr_percent"])
            lines.append(Erratum("volta", table, row, "CR (%)", cell, *ratio_of(cell, tokens)))
    return lines


def video(folder: Path = REFERENCE) -> list[Erratum]:
    """Recompute Table 8's tokens and ratios: eight frames of what Table 1's stages give an image."""
    printed, lines = cells_of("8", folder), []
    copied = "8 times Table 2's printed value, slips included"
    for row in dict.fromkeys(printed.index.get_level_values("row")):
        scheme = scheme_of(stages(folder)[row])
        cell, tokens = float(printed[row, "tokens"]), FRAMES * scheme.tokens
        verdict = judge(cell, tokens, 0.5)
        note = copied if verdict == DIFFERS else ""
        text = f"{FRAMES} * ({scheme.arithmetic})"
        lines.append(Erratum("volta", "8", row, "#Tokens", cell, tokens, text, verdict, note))
        if (row, "cr_percent") in printed:
            cell = float(printed[row, "cr_percent"])
            lines.append(Erratum("volta", "8", row, "CR (%)", cell, *ratio_of(cell, tokens, FRAMES * FULL), note))
    return lines


def fusion(folder: Path = REFERENCE) -> list[Erratum]:
    """Recompute LLaVA-STF's parameters and FLOPs: two linear maps per module, as coded."""
    printed, lines = cells_of("1", folder, "stf"), []
    hidden = WIDTH * CLIP
    mbtf = f"{BLOCKS * CLIP}*{LLM} + {LLM} + {LLM}*{CLIP} + {CLIP}"
    stf = f"{4 * CLIP}*{hidden} + {hidden} + {hidden}*{LLM} + {LLM}"
    plain = f"{CLIP}*{LLM} + {LLM} + {LLM}*{LLM} + {LLM}"
    mbtf_maps, stf_maps = LLM * (BLOCKS + 1) * CLIP, hidden * (4 * CLIP + LLM)
    for row, text, value in (
        ("MBTF", mbtf, mbtf_maps + LLM + CLIP),
        ("STF", stf, stf_maps + hidden + LLM),
        ("STF + MBTF", f"{mbtf} + {stf}", mbtf_maps + LLM + CLIP + stf_maps + hidden + LLM),
        ("LLaVA-1.5 projector", plain, LLM * (CLIP + LLM) + 2 * LLM),
    ):
        cell = float(printed[row, "parameters"])
        lines.append(Erratum("stf", "1", row, "parameters", cell, value, text, judge(cell, value, 0.5)))
    quarter = N_VISION // 4
    for row, text, flops in (
        ("STF + MBTF", f"2e-9 * ({N_VISION}*{mbtf_maps} + {quarter}*{stf_maps})",
         2e-9 * (N_VISION * mbtf_maps + quarter * stf_maps)),
        ("LLaVA-1.5 projector", f"2e-9 * {N_VISION}*{LLM * (CLIP + LLM)}", 2e-9 * N_VISION * LLM * (CLIP + LLM)),
    ):  # fmt: skip
        cell = float(printed[row, "gflops_projector"])
        lines.append(Erratum("stf", "1", row, "GFLOPs of the projector", cell, flops, text, judge(cell, flops, 0.05)))
    cell = float(cells_of("2", folder, "stf")["STF + MBTF (25%)", "tflops"])
    tflops = quarter * N_LAYERS * LLAVOLTA_TFLOPS_PER_TOKEN
    text = f"{quarter} * {N_LAYERS} * {LLAVOLTA_TFLOPS_PER_TOKEN:g}"
    note = "vision tokens in the linear maps of the decoder only; 576 tokens would take 7.46"
    verdict = judge(cell, tflops, 0.05)
    return [*lines, Erratum("stf", "2", "STF + MBTF (25%)", "TFLOPs", cell, tflops, text, verdict, note)]
