"""The summary table, the headline numbers and the model cards; what a reader opens is in site.smk."""


rule summary:
    input:
        config=ancient("<results>/config.yaml"),
        scores=rules.evaluate.input,
        efficiency=rules.efficiency.input,
        notebooks=rules.notebooks.input,
    output:
        text="<results>/paper/summary.txt",
        metrics="<results>/paper/metrics.json",
        table="<results>/paper/summary.csv",
        cards=directory("<results>/paper/cards"),
    log:
        "<logs>/summary.log",
    conda:
        ENVIRONMENT
    threads: 1
    params:
        code=code("report.render"),
    shell:
        "visiontokens summary --config {input.config} --out $(dirname {output.text}) 2>&1 | tee {log} >&2"


rule paper:
    """Tables, figures, numbers, the verdicts on the papers' claims, and the site that shows them."""
    input:
        rules.notebooks.input,
        rules.summary.output,
        rules.verify.input,
        "<results>/site/index.html",
