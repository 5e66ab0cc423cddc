"""Official data and weights (data/registry.tsv): fetched where they are missing, then checked.

Receipts stand for the files, which are no outputs: Snakemake would delete them before it runs a rule again. Nothing
here touches the network while the workflow is planned.
"""


localrules:
    download,
    weights,
    inspect,
    official,


rule download:
    input:
        config=ancient("<data>/config.yaml"),
    output:
        "<data>/downloads/{entry}.json",
    log:
        "<logs>/download/{entry}.log",
    wildcard_constraints:
        entry="|".join(name for name, entry in DOWNLOADS.items() if entry.role not in WEIGHTS),
    priority: 100
    retries: 2
    conda:
        ENVIRONMENT
    params:
        row=lambda wildcards: registered(wildcards.entry),
    shell:
        "visiontokens download --config {input.config} --name {wildcards.entry} --receipt {output} 2>&1 | tee {log} >&2"


rule weights:
    input:
        config=ancient("<data>/config.yaml"),
    output:
        "{folder}/download.json",
    log:
        "<logs>/download/{folder}.log",
    wildcard_constraints:
        folder="|".join(map(re.escape, FOLDERS)),
    priority: 100
    retries: 2
    conda:
        ENVIRONMENT
    params:
        row=lambda wildcards: registered(FOLDERS[wildcards.folder]),
        name=lambda wildcards: FOLDERS[wildcards.folder],
    shell:
        "visiontokens download --config {input.config} --name {params.name} --receipt {output} 2>&1 | tee {log} >&2"


rule inspect:
    """The records that a stage trains on: all but those whose image is missing, which are listed beside the log."""
    input:
        config=ancient("<data>/config.yaml"),
        receipts=lambda wildcards: receipts(wildcards.stage),
    output:
        "<data>/checked/{stage}.json",
    log:
        text="<logs>/inspect/{stage}.log",
        missing="<logs>/inspect/{stage}.missing.txt",
    wildcard_constraints:
        stage="align|tune",
    conda:
        ENVIRONMENT
    params:
        limit=SETTINGS.downloads.max_missing_images,
        code=code("data.official"),
    shell:
        "visiontokens inspect --config {input.config} --part {wildcards.stage} --out {output}"
        " --missing {log.missing} 2>&1 | tee {log.text} >&2"


rule official:
    """The benchmarks' files: right revision, expected counts, every image there."""
    input:
        config=ancient("<results>/config.yaml"),
        receipts=receipts(*BENCHMARKS, *SETTINGS.redundancy.benchmarks),
    output:
        "<data>/world.json",
    log:
        "<logs>/inspect/benchmarks.log",
    conda:
        ENVIRONMENT
    params:
        code=code("data.official"),
    shell:
        "visiontokens inspect --config {input.config} --part benchmarks --out {output} 2>&1 | tee {log} >&2"


rule data:
    """Official data and weights, fetched and checked."""
    input:
        rules.official.output,
        collect("<data>/checked/{stage}.json", stage=["align", "tune"] if TRAINED else []),
        collect("{folder}/download.json", folder=FOLDERS),
