"""One notebook per question, executed by papermill; the executed notebook is a log, kept when it fails."""


rule notebook:
    input:
        config=ancient("<results>/config.yaml"),
        notebook="notebooks/{notebook}.ipynb",
        scores=rules.evaluate.input,
        redundancy=rules.redundancy.input if SETTINGS.redundancy.benchmarks else [],
        efficiency=rules.efficiency.input,
        records=rules.train.input,
        reference=sorted(map(str, Path("data/reference").glob("*.csv"))),
        tables=[str(SETTINGS.experiments.table), "config/benchmarks.tsv"],
    output:
        html=report(
            "<results>/notebooks/{notebook}.html",
            category="Notebooks",
            labels={"notebook": "{notebook}"},
            caption="../report/notebook.rst",
        ),
    log:
        notebook="<results>/notebooks/{notebook}.ipynb",
        text="<logs>/notebooks/{notebook}.log",
    conda:
        ENVIRONMENT
    threads: 1
    params:
        code=notebook_code,
    shell:
        "visiontokens notebook {input.notebook} --config {input.config} --executed {log.notebook} --html {output.html}"
        " 2>&1 | tee {log.text} >&2"


rule notebooks:
    """Every notebook, executed and rendered."""
    input:
        collect("<results>/notebooks/{notebook}.html", notebook=NOTEBOOKS),
