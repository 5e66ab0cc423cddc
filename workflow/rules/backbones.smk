"""The mini backbones from nothing. Not part of `all`, which uses the shipped ones in data/backbones.

To work with rebuilt ones, set `backbones.tower` and `backbones.llm` to the folders below.
"""


rule tower:
    input:
        config=ancient("<results>/config.yaml"),
    output:
        weights="<results>/backbones/tower/model.safetensors",
        record="<results>/backbones/tower/record.json",
    log:
        "<logs>/tower.log",
    conda:
        ENVIRONMENT
    threads: 1
    params:
        settings=section("backbones", "pretrain_tower"),
        code=code("train.backbones.tower"),
    shell:
        "visiontokens tower --config {input.config} --out $(dirname {output.weights}) 2>&1 | tee {log} >&2"


rule llm:
    input:
        tower="<results>/backbones/tower/model.safetensors",
    output:
        weights="<results>/backbones/llm/model.safetensors",
        record="<results>/backbones/llm/record.json",
    log:
        "<logs>/llm.log",
    conda:
        ENVIRONMENT
    threads: 1
    params:
        code=code("train.backbones.llm"),
        run=f"{RESULTS}/runs/backbones/llm",
    shell:
        "visiontokens llm --tower $(dirname {input.tower}) --run-dir {params.run} --out $(dirname {output.weights}) 2>&1 | tee {log} >&2"


rule backbones:
    """Vision tower and language model, pretrained anew (an hour or more on two cores)."""
    input:
        rules.tower.output,
        rules.llm.output,
