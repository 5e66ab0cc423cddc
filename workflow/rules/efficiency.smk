"""Counted and measured cost: tokens, FLOPs, cache bytes, prefill latency, peak memory."""


rule measure:
    input:
        config=ancient("<results>/config.yaml"),
        tower=f"<tower>/{WEIGHTS_FILE}",
        llm=f"<llm>/{WEIGHTS_FILE}",
        methods=sorted({method_file(row.method) for row in EXPERIMENTS.values()}),
        searches=search_results(EXPERIMENTS),
    output:
        records=collect("<results>/efficiency/{experiment}.json", experiment=EXPERIMENTS),
    log:
        "<logs>/efficiency.log",
    conda:
        ENVIRONMENT
    threads: workflow.cores  # alone on the machine: these are timings
    resources:
        mem_mb=3000,
        gpu=gpus(1),
    params:
        settings=section("efficiency"),
        backbones=section("backbones", "llm_layers"),
        code=code(
            "measure.record",
            methods=sorted({row.method for row in EXPERIMENTS.values()}),
        ),
    shell:
        "OMP_NUM_THREADS=1 visiontokens efficiency --config {input.config} --out $(dirname {output.records[0]})"
        " 2>&1 | tee {log} >&2"


rule efficiency:
    """The counted and measured budget of every experiment."""
    input:
        rules.measure.output,
