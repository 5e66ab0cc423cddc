"""Which published tables the report regenerates, and what their captions say."""

from __future__ import annotations

from typing import NamedTuple

from visiontokens.report.book import Book
from visiontokens.report.tables import paper_table
from visiontokens.report.write import Table

UNREADABLE = "Its published values could not be read, so only ours are shown; the rows follow the released code."
ELSEWHERE = "Not run at this scale; the published values are kept for reference."
SCORES13 = [
    "gqa", "mmvet", "scienceqa", "mme", "textvqa", "pope", "mmbench", "mmbench_cn", "vqav2", "llava_w", "vizwiz",
    "seed_image", "mmmu", "average",
]  # fmt: skip


class Entry(NamedTuple):
    """One published table: where it stands, what it shows, and its columns if not simply the published ones."""

    paper: str
    table: str
    caption: str
    columns: tuple[str, ...] = ()


CATALOG: dict[str, Entry] = {
    "stf-fig1": Entry("stf", "fig1", "LLaVA-STF, Figure 1: baseline, retrained average pooling and STF + MBTF."),
    "stf-1": Entry("stf", "1", "LLaVA-STF, Table 1: module sizes, counted from the code (ours: none for MBTF)."),
    "stf-2": Entry(
        "stf", "2", "LLaVA-STF, Table 2: the method's row (other systems' rows could not be read).",
        ("tflops", "vqav2", "gqa", "vizwiz", "scienceqa", "textvqa", "pope", "mme", "mmbench", "mmbench_cn"),
    ),
    "stf-3": Entry("stf", "3", f"LLaVA-STF, Table 3: modules. {UNREADABLE}"),
    "stf-4": Entry("stf", "4", f"LLaVA-STF, Table 4: window size k. {UNREADABLE}"),
    "stf-5": Entry("stf", "5", f"LLaVA-STF, Table 5: fusion strategies. {UNREADABLE}"),
    "volta-2": Entry(
        "volta", "2",
        "LLaVolta, Table 2: stage schedules. #Tokens and CR are means over the training stages; FLOPs and latency are "
        "those of testing.",
        ("tokens", "cr_percent", "tflops", "latency_ms", "train_hours", *SCORES13),
    ),
    "volta-3": Entry(
        "volta", "3", "LLaVolta, Table 3: compressors at one ratio, at test time only and in training too. 'VCC' is "
        "the VIP-token method that the paper compares with.",
    ),
    "volta-4": Entry("volta", "4", "LLaVolta, Table 4: parametric against parameter-free compression."),
    "volta-5": Entry(
        "volta", "5", "LLaVolta, Table 5: constant compression in training and test.",
        ("tokens", "cr_percent", "latency_ms", "tflops", "train_hours", *SCORES13),
    ),
    "volta-6": Entry("volta", "6", f"LLaVolta, Table 6: 13B model. {ELSEWHERE}"),
    "volta-7": Entry("volta", "7", "LLaVolta, Table 7: one compressor against layer-wise progressive compression."),
    "volta-8": Entry(
        "volta", "8", "LLaVolta, Table 8: video question answering with Video-LLaVA, every frame compressed by itself. "
        "A language model judged the published accuracies and scores (0 to 5), which ours therefore lack; EM is exact "
        "match on our clips, another metric on other data. #Tokens and CR are means over the training stages.",
        (
            "tokens", "cr_percent", "tflops_stage_average", "train_hours", "msvd_score", "msvd", "msrvtt_score",
            "msrvtt", "activitynet_score", "activitynet", "average_score", "average", "msvd_qa", "activitynet_qa",
        ),
    ),
    "volta-9": Entry("volta", "9", "LLaVolta, Table 9: share of the compressed first stage, in percent of the steps."),
    "volta-10": Entry("volta", "10", f"LLaVolta, Table 10: Mini-Gemini 2B. {ELSEWHERE}"),
}  # fmt: skip
"""Published tables by their name in the experiment table. Table 1 of LLaVolta is in `summaries.schemes`."""


def regenerate(book: Book, name: str) -> Table:
    """Return the table of this catalog name, published and ours.

    Raises:
        ValueError: the catalog does not have it.
    """
    if name not in CATALOG:
        raise ValueError(f"table: found {name!r}, expected one of {', '.join(CATALOG)}")
    entry = CATALOG[name]
    return paper_table(book, entry.paper, entry.table, entry.caption, list(entry.columns) or None)
