"""The video part of the workflow: planned where a scale asks for it, and nowhere else."""

from __future__ import annotations

from planning import Run, job_counts

OVER = ("config/scales/smoke.yaml", "config/scales/smoke-video.yaml")


def test_a_scale_with_clips_plans_them_and_no_test_images(snakemake: Run) -> None:
    done = snakemake("-n", "--configfile", *OVER)
    found = job_counts(done)
    assert found["clips"] == 1 and "probe" not in found and found["notebook"] == 1
    text = done.stdout + done.stderr
    for name in ("video", "videotest", "pretrain", "instruct", "validation"):
        assert f"features/{name}/index.json" in text
    assert "features/test/index.json" not in text


def test_other_scales_have_no_clips(snakemake: Run) -> None:
    done = snakemake("-n", "--configfile", "config/scales/smoke.yaml")
    assert "clips" not in job_counts(done) and "features/video" not in done.stdout + done.stderr


def test_the_video_scale_leaves_the_mini_scales_data_alone(snakemake: Run) -> None:
    """DVC stores a scale's folder of benchmarks as one output."""
    done = snakemake("-n", "--configfile", "config/scales/mini-video.yaml")
    text = done.stdout + done.stderr
    assert "data/world/mini-video/videos.tsv" in text and "data/world/mini/" not in text
    found = job_counts(done)
    assert found["tune"] == 12 and found["align"] == 7
