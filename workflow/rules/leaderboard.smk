"""The field's methods beside the main rows: one table, its figures and its notebook.

Trainings, predictions and scores are those of the other rule files; what the leaderboard alone writes, its settings
included, lies in a folder of its own.
"""


rule measure_leaderboard:
    """Cost of all of its rows in one job, so that one machine in one state timed them."""
    input:
        config=ancient("<results>/leaderboard/config.yaml"),
        tower=f"<tower>/{WEIGHTS_FILE}",
        llm=f"<llm>/{WEIGHTS_FILE}",
        methods=sorted({method_file(row.method) for row in LEADERBOARD_ROWS.values()}),
        searches=search_results(LEADERBOARD_ROWS),
    output:
        records=collect(
            "<results>/leaderboard/efficiency/{experiment}.json",
            experiment=LEADERBOARD_ROWS,
        ),
    log:
        "<logs>/leaderboard/efficiency.log",
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
            methods=sorted({row.method for row in LEADERBOARD_ROWS.values()}),
        ),
    shell:
        "OMP_NUM_THREADS=1 visiontokens efficiency --config {input.config} --out $(dirname {output.records[0]})"
        " 2>&1 | tee {log} >&2"


rule leaderboard_notebook:
    """The table, its figures and the page that shows them."""
    input:
        config=ancient("<results>/leaderboard/config.yaml"),
        notebook="notebooks/07_leaderboard.ipynb",
        scores=leaderboard_runs(SCORES, benchmarks=BENCHMARKS),
        efficiency=rules.measure_leaderboard.output,
        methods=rules.measure_leaderboard.input.methods,
        tables=[str(SETTINGS.experiments.table), "config/benchmarks.tsv"],
    output:
        html=report(
            "<results>/leaderboard/07_leaderboard.html",
            category="Notebooks",
            labels={"notebook": "07_leaderboard"},
            caption="../report/leaderboard.rst",
        ),
        table="<results>/leaderboard/tables/leaderboard.csv",
    log:
        notebook="<results>/leaderboard/07_leaderboard.ipynb",
        text="<logs>/leaderboard/notebook.log",
    conda:
        ENVIRONMENT
    threads: 1
    params:
        tolerance=section("leaderboard", "tolerance"),
        code=code("report.render", *imports(Path("notebooks/07_leaderboard.ipynb"))),
    shell:
        "visiontokens notebook {input.notebook} --config {input.config} --executed {log.notebook} --html {output.html}"
        " --out $(dirname {output.html}) 2>&1 | tee {log.text} >&2"


rule leaderboard:
    """Every method of the field beside the main rows, over several seeds."""
    input:
        rules.leaderboard_notebook.output,
