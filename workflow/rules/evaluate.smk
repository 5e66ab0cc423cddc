"""Predictions (the archival unit: one job answers all benchmarks) and their scores (seconds, no model)."""

ANSWERS = "<results>/predictions/{experiment}/seed{seed}/{benchmark}.jsonl"
SCORES = "<results>/scores/{experiment}/seed{seed}/{benchmark}.json"


rule predict:
    input:
        config=ancient("<results>/config.yaml"),
        weights=final_weights,
        method=test_method_file,
        search=search_result,
        world="<data>/world.json",
        further=FURTHER_RECORD,
        features=cached(*TEST_SETS),
        states=class_tokens("method", *IMAGE_TEST_SETS),
    output:
        answers=each_benchmark(ANSWERS),
        record="<results>/predictions/{experiment}/seed{seed}/record.json",
    log:
        "<logs>/predict/{experiment}.seed{seed}.log",
    benchmark:
        "<benchmarks>/predict/{experiment}.seed{seed}.tsv"
    priority: 40
    conda:
        ENVIRONMENT
    threads: SETTINGS.threads
    resources:
        mem_mb=3000,
        gpu=gpus(SETTINGS.gpus),
    params:
        settings=section(
            "evaluate",
            "benchmarks",
            "batch_size",
            "max_new_tokens",
            "limit",
            "precision",
        ),
        video=section("video", "frames") if VIDEOS else {},
        code=test_code("evaluate.predict"),
    shell:
        launched(
            "predict",
            "--config {input.config} --experiment {wildcards.experiment} --seed {wildcards.seed}"
            " --model $(dirname {input.weights}) --out $(dirname {output.record})",
        )


rule validate:
    """Accuracy on the validation split with its controls; the gate of every comparison reads it."""
    input:
        config=ancient("<results>/config.yaml"),
        weights=final_weights,
        method=test_method_file,
        search=search_result,
        validation="<data>/validation/instruct.json",
        features="<data>/features/validation/index.json",
        states=class_tokens("method", "validation"),
    output:
        "<results>/validation/{experiment}/seed{seed}.json",
    log:
        "<logs>/validate/{experiment}.seed{seed}.log",
    priority: 45
    conda:
        ENVIRONMENT
    threads: SETTINGS.threads
    resources:
        mem_mb=3000,
        gpu=gpus(1),
    params:
        settings=section("evaluate", "batch_size", "max_new_tokens", "precision"),
        code=test_code("evaluate.validate"),
    shell:
        "visiontokens validate --config {input.config} --experiment {wildcards.experiment} --seed {wildcards.seed}"
        " --model $(dirname {input.weights}) --out {output} 2>&1 | tee {log} >&2"


rule score:
    input:
        config=ancient("<results>/config.yaml"),
        answers=rules.predict.output.answers,
        record=rules.predict.output.record,
        world="<data>/world.json",
        further=FURTHER_RECORD,
    output:
        scores=each_benchmark(SCORES),
    log:
        "<logs>/score/{experiment}.seed{seed}.log",
    priority: 20
    conda:
        ENVIRONMENT
    params:
        settings=section("evaluate", "bootstrap", "confidence", "limit", "policy", "judge"),
        code=code("evaluate.scoring"),
    shell:
        "visiontokens score-run --config {input.config} --experiment {wildcards.experiment} --seed {wildcards.seed}"
        " --predictions $(dirname {input.record}) --out $(dirname {output.scores[0]}) 2>&1 | tee {log} >&2"


rule evaluate:
    """Scores of every experiment on every benchmark, and of every trained one on the generated world's validation split."""
    input:
        runs(SCORES, benchmarks=BENCHMARKS),
        runs("<results>/validation/{experiment}/seed{seed}.json", [] if OFFICIAL else TRAINED),
