"""How the released LLaVolta code counts its stages (one count a forward pass), against its recorded run."""

from visiontokens.provenance import read_json
from visiontokens.train.stages import official_stage


def test_official_counting(golden):
    """The recorded run of the released code: pivots 3, 6, 9, and the published four stages."""
    recorded = read_json(golden / "llavolta/schedule.json")
    short = recorded["pivots_3_6_9"]
    used = [official_stage(row["forward"], short["pivots"], short["strides"]) for row in short["per_forward"]]
    assert [short["strides"][i] for i in used] == [row["used_stride"] for row in short["per_forward"]]
    assert [short["layers"][i] for i in used] == [row["used_layer"] for row in short["per_forward"]]
    long = recorded["published_4stage"]
    for number, stage in enumerate(long["stages"]):
        first = stage["first_forward"]
        assert official_stage(first, long["pivots"], long["strides"]) == number
        assert first == 0 or official_stage(first - 1, long["pivots"], long["strides"]) == number - 1
