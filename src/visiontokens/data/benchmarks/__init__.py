"""Image and video benchmarks: official files in, examples with LLaVA-1.5's prompts out. Pure Python, no torch."""

from __future__ import annotations

from visiontokens.data.benchmarks import (
    gqa,
    llava_bench,
    mmbench,
    mme,
    mmmu,
    mmvet,
    mvbench,
    pope,
    scienceqa,
    seed,
    textvqa,
    videoqa,
    vizwiz,
    vqav2,
)
from visiontokens.data.benchmarks.base import FURTHER_SET, Benchmark, BenchmarkError, Example, subset

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("vqav2", "vqav2", "vqav2", vqav2.load),
        Benchmark("gqa", "gqa", "gqa/images", gqa.load),
        Benchmark("vizwiz", "vizwiz", "vizwiz", vizwiz.load),
        Benchmark(
            "scienceqa", "scienceqa", "scienceqa/images", scienceqa.load, max_new_tokens=1024, splits=("test", "val")
        ),
        Benchmark("textvqa", "textvqa", "textvqa/train_images", textvqa.load),
        Benchmark("pope", "pope", "pope", pope.load),
        Benchmark("mme", "mme", f"mme/{mme.RELEASE}", mme.load),
        Benchmark("mmbench", "mmbench", "mmbench/images", mmbench.load, max_new_tokens=1024),
        Benchmark("mmbench_cn", "mmbench_cn", "mmbench/images", mmbench.load_cn, lang="cn", max_new_tokens=1024),
        Benchmark("mmvet", "mmvet", "mmvet", mmvet.load, max_new_tokens=1024, further=True),
        Benchmark(
            "llava_bench", "llava_bench", "llava_bench/images", llava_bench.load, max_new_tokens=1024, further=True
        ),
        Benchmark("seed", "seed", "seed", seed.load, further=True),
        Benchmark("mmmu", "mmmu", "mmmu", mmmu.load, further=True),
        Benchmark("msvd_qa", "msvd_qa", "msvd_qa/videos", videoqa.load_msvd, video=True, max_new_tokens=1024),
        Benchmark(
            "msrvtt_qa", "msrvtt_qa", "msrvtt_qa/videos", videoqa.load_msrvtt, video=True, further=True,
            max_new_tokens=1024,
        ),
        Benchmark(
            "tgif_qa", "tgif_qa", "tgif_qa/videos", videoqa.load_tgif, video=True, further=True, max_new_tokens=1024
        ),
        Benchmark(
            "activitynet_qa", "activitynet_qa", "activitynet_qa/videos", videoqa.load_activitynet, video=True,
            max_new_tokens=1024, splits=("test", "val"),
        ),
        Benchmark(
            "mvbench", "mvbench", "mvbench/video", mvbench.load, video=True, further=True, max_new_tokens=1024,
        ),
    )
}  # fmt: skip
"""The nine image benchmarks in the papers' column order, further ones about images, then those about videos."""
MAIN_BENCHMARKS = {name: found for name, found in BENCHMARKS.items() if not (found.video or found.further)}
"""The nine of both papers' main tables, which every generated world holds."""


def find_benchmark(name: str) -> Benchmark:
    """Return the benchmark registered as `name`.

    Raises:
        BenchmarkError: there is none; the message lists the known ones.
    """
    if name not in BENCHMARKS:
        raise BenchmarkError(f"unknown benchmark {name!r}, expected one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


__all__ = [
    "BENCHMARKS",
    "FURTHER_SET",
    "MAIN_BENCHMARKS",
    "Benchmark",
    "BenchmarkError",
    "Example",
    "find_benchmark",
    "subset",
]
