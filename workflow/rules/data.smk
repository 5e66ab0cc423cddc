"""The mini world in the official file formats, and the frozen tower's features of its images.

Scales may share a data folder (`data`), which therefore has a settings file of its own.
"""


rule world:
    input:
        config=ancient("<data>/config.yaml"),
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


rule clips:
    """Clips of the mini world with their questions (scales with `video.clips` only); its images stay as they are."""
    input:
        config=ancient("<data>/config.yaml"),
        instruct="<data>/instruct/llava_v1_5_mix_mini.json",
    output:
        record="<data>/clips.json",
        videos="<data>/videos.tsv",
        mix="<data>/video/llava_video_mix_mini.json",
    log:
        "<logs>/clips.log",
    priority: 95
    conda:
        ENVIRONMENT
    params:
        settings=section("video", "clips"),
        code=code("data.miniworld.video"),
    shell:
        "visiontokens clips --config {input.config} --instructions {input.instruct} --out $(dirname {output.videos})"
        " 2>&1 | tee {log} >&2"


rule further:
    """Benchmarks beyond the nine of every world, where the settings name some; the world itself stays as it is."""
    input:
        config=ancient("<data>/config.yaml"),
    output:
        record="<data>/further.json",
        images="<data>/further.tsv",
    log:
        "<logs>/further.log",
    priority: 96
    conda:
        ENVIRONMENT
    params:
        settings=section("further"),
        names=FURTHER,
        code=code("data.miniworld.further"),
    shell:
        "visiontokens further --config {input.config} --out $(dirname {output.images}) {params.names}"
        " 2>&1 | tee {log} >&2"


rule features:
    input:
        unpack(listing),
        config=ancient("<data>/config.yaml"),
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
        frames=lambda wildcards: (SETTINGS.video.frames if wildcards.set in VIDEO_SETS else 0),
        code=code("data.featurize"),
    shell:
        "visiontokens features --config {input.config} --set {wildcards.set} 2>&1 | tee {log} >&2"


rule class_states:
    """The class token at every level, and the levels that `features` leaves out: for the methods that read them."""
    input:
        unpack(listing),
        config=ancient("<data>/config.yaml"),
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
            set=["pretrain", "instruct", "validation", *TEST_SETS, *TRAIN_VIDEOS],
        ),
