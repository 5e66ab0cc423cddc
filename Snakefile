"""Table of contents: settings, rule files, and the named targets in the order of the papers.

snakemake                                                the `mini` scale (profiles/default is found by itself)
snakemake --configfile config/scales/smoke.yaml          another size
snakemake train                                          one target
snakemake verify                                         the claims of both papers: PASS, FAIL or NOT RUN
snakemake site                                           the pages that show a run's results
snakemake leaderboard                                    the field's methods beside the main rows (not part of `all`)
"""

from snakemake.utils import min_version

min_version("9.18")


configfile: "config/config.yaml"


# Used with `--sdm apptainer` only; containers/visiontokens.def says how to build it.
container: "visiontokens.sif"


include: "workflow/rules/common.smk"
include: "workflow/rules/download.smk" if OFFICIAL else "workflow/rules/data.smk"
include: "workflow/rules/backbones.smk"
include: "workflow/rules/redundancy.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/efficiency.smk"
include: "workflow/rules/notebooks.smk"
include: "workflow/rules/verify.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/site.smk"
include: "workflow/rules/leaderboard.smk"


report: "workflow/report/workflow.rst"


localrules:
    all,
    data,
    redundancy,
    train,
    evaluate,
    efficiency,
    notebooks,
    verify,
    paper,
    backbones,
    leaderboard,


rule all:
    """Every table and figure of both papers at this scale."""
    default_target: True
    input:
        rules.paper.input,


onstart:
    write_settings()


onsuccess:
    announce()


onerror:
    print(
        f"Something failed: the job's log is named above, all logs are in {RESULTS}/logs.",
        file=sys.stderr,
    )
