"""The static site: every result as pages that open from a folder, and the traces that its token explorer shows."""


rule explore:
    """Where the patches of a few test images go, in every row's model of the first seed; one job loads them in turn."""
    input:
        config=ancient("<results>/config.yaml"),
        weights=sorted({weights_of(name, 0) for name in EXPERIMENTS}),
        methods=sorted({method_file(row.method) for row in EXPERIMENTS.values()}),
        searches=search_results(EXPERIMENTS),
        answers=collect("<results>/predictions/{experiment}/seed0/record.json", experiment=EXPERIMENTS),
        scores=runs(SCORES, benchmarks=BENCHMARKS),
        world="<data>/world.json",
        features=cached("test"),
        states=cached("test.class") if READS_CLASS else [],
    output:
        questions="<results>/explorer/questions.json",
        rows=collect("<results>/explorer/{experiment}.json", experiment=EXPERIMENTS),
    log:
        "<logs>/explore.log",
    conda:
        ENVIRONMENT
    threads: SETTINGS.threads
    resources:
        mem_mb=3000,
        gpu=gpus(1),
    params:
        settings=section("report", "explorer_images", "explorer_questions"),
        evaluate=section("evaluate", "limit", "precision"),
        code=code(
            "analyze.explorer",
            methods=sorted({row.method for row in EXPERIMENTS.values()}),
        ),
    shell:
        "visiontokens explore --config {input.config} --out $(dirname {output.questions}) 2>&1 | tee {log} >&2"


rule site:
    """The pages. The leaderboard is shown where it is there; its target is not run for it."""
    input:
        config=ancient("<results>/config.yaml"),
        scores=rules.evaluate.input,
        records=rules.train.input,
        redundancy=rules.redundancy.input if SETTINGS.redundancy.benchmarks else [],
        efficiency=rules.efficiency.input,
        # without the folder of cards: a folder has no checksum, and its date would remake the site in a restored clone
        summary=[rules.summary.output.text, rules.summary.output.metrics, rules.summary.output.table],
        notebooks=rules.notebooks.input,
        verdicts=rules.ledger.output,
        traces=rules.explore.output if EXPLORED else [],
        tables=[str(SETTINGS.experiments.table), "config/benchmarks.tsv"],
        reference=sorted(map(str, Path("data/reference").glob("*.csv"))),
        docs=sorted(map(str, [*Path("docs").glob("methods.md"), *Path("docs/methods").glob("*.md")])),
        rules=collect("workflow/rules/{name}.smk", name=["notebooks", "leaderboard", "site"]),
    output:
        pages=collect(
            "<results>/site/{page}.html",
            page=["index", "leaderboard", "gallery", "methods", "explorer"],
        ),
        figures=report(
            directory("<results>/site/figures"),
            patterns=["{figure}.png"],
            category="Figures",
            labels={"figure": "{figure}"},
            caption="../report/figure.rst",
        ),
        tables=report(
            directory("<results>/site/tables"),
            patterns=["{table}.csv"],
            category="Tables",
            labels={"table": "{table}"},
            caption="../report/table.rst",
        ),
        folders=[directory(f"<results>/site/{name}") for name in ("assets", "data", "methods", "notebooks", "source")],
    log:
        "<logs>/site.log",
    conda:
        ENVIRONMENT
    threads: 1
    params:
        code=code("report.site.build") + assets("report.site"),
        beside=digests("leaderboard/tables/leaderboard.csv"),
    shell:
        "visiontokens site --config {input.config} --out $(dirname {output.pages[0]}) 2>&1 | tee {log} >&2"
