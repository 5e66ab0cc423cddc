"""Two stages as in LLaVA: align the projector, then tune language model and projector; the tower stays frozen.

Rolling checkpoints live in an undeclared run folder, so that a killed run continues; only what a finished run leaves
is declared.
"""


rule align:
    input:
        config=ancient("<results>/config.yaml"),
        annotations=f"<data>/{SETTINGS.train.align.annotations}",
        features=cached(SETTINGS.train.align.image_set),
        states=class_tokens("train_method", SETTINGS.train.align.image_set),
        tower=f"<tower>/{WEIGHTS_FILE}",
        llm=f"<llm>/{WEIGHTS_FILE}",
        method=train_method_file,
    output:
        weights=trained("align", "model.safetensors"),
        config=trained("align", "config.json"),
        steps=trained("align", "log.jsonl"),
        record=trained("align", "record.json"),
    log:
        "<logs>/align/{experiment}.seed{seed}.log",
    benchmark:
        "<benchmarks>/align/{experiment}.seed{seed}.tsv"
    priority: longest_first
    conda:
        ENVIRONMENT
    threads: SETTINGS.threads
    resources:
        mem_mb=6000,
        gpu=gpus(SETTINGS.gpus),
    params:
        seed=SETTINGS.seed,
        backbones=section("backbones", "llm_layers"),
        settings=section("train")["align"],
        code=train_code,
        run=f"{RESULTS}/runs/{{experiment}}/seed{{seed}}/align",
    shell:
        training(
            "--config {input.config} --experiment {wildcards.experiment} --seed {wildcards.seed} --stage align"
            " --run-dir {params.run} --out $(dirname {output.weights})"
        )


rule tune:
    input:
        config=ancient("<results>/config.yaml"),
        annotations=f"<data>/{SETTINGS.train.tune.annotations}",
        features=cached(SETTINGS.train.tune.image_set, *TRAIN_VIDEOS),
        states=class_tokens("train_method", SETTINGS.train.tune.image_set),
        tower=f"<tower>/{WEIGHTS_FILE}",
        llm=f"<llm>/{WEIGHTS_FILE}",
        method=train_method_file,
        schedule=schedule_file,
        init=alignment,
    output:
        weights=trained("tune", "model.safetensors"),
        config=trained("tune", "config.json"),
        steps=trained("tune", "log.jsonl"),
        record=trained("tune", "record.json"),
    log:
        "<logs>/tune/{experiment}.seed{seed}.log",
    benchmark:
        "<benchmarks>/tune/{experiment}.seed{seed}.tsv"
    priority: longest_first
    conda:
        ENVIRONMENT
    threads: SETTINGS.threads
    resources:
        mem_mb=6000,
        gpu=gpus(SETTINGS.gpus),
    params:
        seed=SETTINGS.seed,
        backbones=section("backbones", "llm_layers"),
        settings=section("train")["tune"],
        video=section("video", "frames") if CLIPS else {},
        code=train_code,
        run=f"{RESULTS}/runs/{{experiment}}/seed{{seed}}/tune",
    shell:
        training(
            "--config {input.config} --experiment {wildcards.experiment} --seed {wildcards.seed} --stage tune"
            " --run-dir {params.run} --init $(dirname {input.init}) --out $(dirname {output.weights})"
        )


rule train:
    """Weights of every trained experiment."""
    input:
        runs(trained("tune", "record.json"), TRAINED),
