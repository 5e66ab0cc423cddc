"""The mini world in the official file formats, and the frozen tower's features of its images."""


rule world:
    input:
        config=ancient("<results>/config.yaml"),
    output:
        record="<data>/world.json",
        images="<data>/images.tsv",
        pretrain="<data>/pretrain/blip_laion_cc_sbu_mini.json",
        instruct="<data>/instruct/llava_v1_5_mix_mini.json",
        validation="<data>/validation/instruct.json",
    log:
        "<logs>/world.log",
    priority: 100
    conda:
        ENVIRONMENT
    params:
        settings=section("world"),
        code=code("data.miniworld.build"),
    shell:
        "visiontokens world --config {input.config} --out $(dirname {output.images}) 2>&1 | tee {log} >&2"


rule features:
    input:
        config=ancient("<results>/config.yaml"),
        images="<data>/images.tsv",
        world="<data>/world.json",
        tower="<tower>/model.safetensors",
    output:
        "<data>/features/{set}/index.json",
    log:
        "<logs>/features/{set}.log",
    priority: 90
    conda:
        ENVIRONMENT
    threads: SETTINGS.threads
    resources:
        gpu=gpus(1),
    params:
        settings=section("features"),
        code=code("data.featurize"),
    shell:
        "visiontokens features --config {input.config} --set {wildcards.set} 2>&1 | tee {log} >&2"


rule class_states:
    """The class token at every level, and the levels that `features` leaves out: for the methods that read them."""
    input:
        config=ancient("<results>/config.yaml"),
        images="<data>/images.tsv",
        world="<data>/world.json",
        tower="<tower>/model.safetensors",
    output:
        "<data>/features/{set}.class/index.json",
    log:
        "<logs>/features/{set}.class.log",
    priority: 85
    conda:
        ENVIRONMENT
    threads: SETTINGS.threads
    resources:
        gpu=gpus(1),
    params:
        settings=section("features"),
        code=code("data.class_states"),
    shell:
        "visiontokens class-states --config {input.config} --set {wildcards.set} 2>&1 | tee {log} >&2"


rule data:
    """Data in official formats with the cached features."""
    input:
        rules.world.output,
        collect(
            "<data>/features/{set}/index.json",
            set=["pretrain", "instruct", "validation", "test"],
        ),
