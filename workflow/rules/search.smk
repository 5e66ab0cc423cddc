"""Schedules that methods take from a search on the first seed's weights, with training questions (G-Search, P-Sigmoid)."""


rule search:
    input:
        config=ancient("<results>/config.yaml"),
        weights=lambda wildcards: weights_of(wildcards.experiment, 0),
        method=test_method_file,
        annotations=f"<data>/{SETTINGS.train.tune.annotations}",
        features=cached(SETTINGS.train.tune.image_set),
    output:
        "<results>/search/{experiment}.json",
    log:
        "<logs>/search/{experiment}.log",
    benchmark:
        "<benchmarks>/search/{experiment}.tsv"
    priority: 50
    conda:
        ENVIRONMENT
    threads: SETTINGS.threads
    resources:
        mem_mb=4000,
        gpu=gpus(1),
    params:
        settings=section("search"),
        evaluate=section("evaluate", "batch_size", "precision"),
        code=test_code("analyze.search"),
        run=f"{RESULTS}/runs/{{experiment}}/search",
    shell:
        "visiontokens search --config {input.config} --experiment {wildcards.experiment}"
        " --model $(dirname {input.weights}) --run-dir {params.run} --out {output} 2>&1 | tee {log} >&2"
