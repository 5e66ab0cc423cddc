"""Benchmarks beyond the nine: planned where a scale names them, beside a world that is not made again."""

from __future__ import annotations

from planning import Run, job_counts

OVER = ("config/scales/smoke.yaml", "config/scales/smoke-further.yaml")


def test_a_scale_that_names_them_plans_them_with_their_features(snakemake: Run) -> None:
    done = snakemake("-n", "--configfile", *OVER)
    found, text = job_counts(done), done.stdout + done.stderr
    assert found["further"] == 1 and found["world"] == 1
    for name in ("test", "further"):
        assert f"features/{name}/index.json" in text
    for name in ("pope", "seed", "mmmu"):
        assert f"scores/none/seed0/{name}.json" in text


def test_other_scales_have_none(snakemake: Run) -> None:
    done = snakemake("-n", "--configfile", "config/scales/smoke.yaml")
    assert "further" not in job_counts(done) and "features/further" not in done.stdout + done.stderr
