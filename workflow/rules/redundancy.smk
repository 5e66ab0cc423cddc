"""LLaVolta, Fig. 1: how many of its vision tokens does the un-retrained baseline need?"""


rule probe:
    input:
        config=ancient("<results>/config.yaml"),
        grid=str(SETTINGS.redundancy.table),
        weights=weights_of(SETTINGS.redundancy.model, 0),
        world="<data>/world.json",
        features=cached("validation", "test"),
    output:
        curve="<results>/redundancy/curve.csv",
        attention="<results>/redundancy/attention.csv",
        similarity="<results>/redundancy/similarity.csv",
        probe="<results>/redundancy/probe.csv",
    log:
        "<logs>/redundancy.log",
    benchmark:
        "<benchmarks>/redundancy.tsv"
    priority: 75
    conda:
        ENVIRONMENT
    threads: SETTINGS.threads
    resources:
        mem_mb=3000,
        gpu=gpus(1),
    params:
        settings=section("redundancy"),
        evaluate=section("evaluate", "batch_size", "max_new_tokens", "precision"),
        code=code("analyze.redundancy", methods=["vcc-2-8"]),
    shell:
        "visiontokens redundancy --config {input.config} --model $(dirname {input.weights})"
        " --out $(dirname {output.curve}) 2>&1 | tee {log} >&2"


rule redundancy:
    """Accuracy against tokens kept, attention by layer, similarity of neighbouring tokens."""
    input:
        rules.probe.output,
