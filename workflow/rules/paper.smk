"""What a reader opens: the summary table, the headline numbers, and one page that links everything."""


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
        page=report(
            "<results>/paper/index.html",
            category="Paper",
            caption="../report/index.rst",
        ),
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
    """Tables, figures, numbers, the page that links them, and the verdicts on the papers' claims."""
    input:
        rules.notebooks.input,
        rules.summary.output,
        rules.verify.input,
