"""The claims of both papers, judged by what this scale has run."""


rule ledger:
    """PASS, FAIL or NOT RUN for every claim, with the numbers."""
    input:
        config=ancient("<results>/config.yaml"),
        claims="config/claims.yaml",
        scores=rules.evaluate.input,
        redundancy=rules.redundancy.input if SETTINGS.redundancy.benchmarks else [],
        efficiency=rules.efficiency.input,
        records=rules.train.input,
        reference=sorted(map(str, Path("data/reference").glob("*.csv"))),
        tables=[str(SETTINGS.experiments.table), "config/benchmarks.tsv"],
    output:
        json="<results>/verify/ledger.json",
        table="<results>/verify/ledger.csv",
        markdown="<results>/verify/ledger.md",
        text="<results>/verify/ledger.txt",
        metrics="<results>/verify/metrics.json",
        page=report(
            "<results>/verify/ledger.html",
            category="Claims",
            caption="../report/claims.rst",
        ),
    log:
        "<logs>/verify.log",
    conda:
        ENVIRONMENT
    threads: 1
    params:
        code=code("verify.ledger"),
    shell:
        "visiontokens verify --config {input.config} --out $(dirname {output.json}) 2>&1 | tee {log} >&2"


rule verify:
    """The ledger of claims."""
    input:
        rules.ledger.output,
