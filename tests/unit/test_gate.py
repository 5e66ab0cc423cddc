"""The convergence gate and the validation table."""

import numpy as np
import pytest

from visiontokens.analyze.gate import gate, read_validations
from visiontokens.data.benchmarks import Example
from visiontokens.data.validation import load_validation
from visiontokens.evaluate.validate import shuffled, table
from visiontokens.provenance import write_json
from visiontokens.report.convergence import controls, convergence


def result(name, right, seed=0):
    """A validation result over 50 images with two families."""
    questions = [[f"{i // 2:03d}-{i % 2}", ("color", "number")[i % 2], int(ok)] for i, ok in enumerate(right)]
    marks = np.array(right, dtype=float)
    value = 100 * (marks[::2].mean() + marks[1::2].mean()) / 2
    return {"experiment": name, "seed": seed, "value": float(value), "questions": questions}


def test_verdicts():
    rng = np.random.default_rng(0)
    base = rng.random(100) < 0.7
    better, worse = base | (rng.random(100) < 0.9), base & (rng.random(100) < 0.3)
    runs = [result("none", base), result("same", base), result("good", better), result("bad", worse)]
    out = gate(runs, "none")
    assert out.verdict.tolist() == ["level", "baseline behind", "baseline ahead"]
    assert out.difference[0] == 0
    assert ((out.ci_low <= out.difference) & (out.difference <= out.ci_high)).all()
    assert gate(runs, "absent").empty


def test_a_lead_in_one_of_three_seeds_is_level_and_in_all_of_them_is_not():
    base = [1, 0] * 50
    once, always = ([result("stf", right, seed) for seed, right in enumerate(rows)] for rows in (
        ([1, 1] * 50, base, base), ([1, 1] * 50, [1, 1] * 45 + base[:10], [1, 1] * 48 + base[:4]),
    ))  # fmt: skip
    bases = [result("none", base, seed) for seed in range(3)]
    (level,), (behind,) = (gate([*bases, *runs], "none").to_dict("records") for runs in (once, always))
    assert (level["verdict"], level["seeds"]) == ("level", 3)
    assert level["difference"] == pytest.approx(50 / 3)
    assert behind["verdict"] == "baseline behind"
    (single,) = gate([*bases, once[0]], "none").to_dict("records")
    assert (single["verdict"], single["seeds"]) == ("baseline behind", 1)


def test_other_questions_are_refused():
    with pytest.raises(ValueError, match="'b': other questions than 'a'"):
        gate([result("a", [1] * 100), result("b", [1] * 98)], "a")


def test_read_validations(tmp_path):
    write_json(tmp_path / "none" / "seed0.json", result("none", [1] * 4))
    assert [row["experiment"] for row in read_validations(tmp_path)] == ["none"]


def test_table_and_shuffled_control():
    examples = [
        Example(
            f"{i}", f"validation/images/{i}.jpg", "q", f"{i}", {"answer": "red" if i < 3 else "blue", "family": "color"}
        )
        for i in range(4)
    ]
    row = table(examples, {"0": True, "1": True, "2": False, "3": True}, dict.fromkeys("0123", False))["color"]
    assert (row["value"], row["prior"], row["shuffled"], row["n"]) == (75.0, 75.0, 0.0, 4)
    other = shuffled(examples)
    assert [e.question_id for e in other] == list("0123")
    assert all(a.image != b.image for a, b in zip(examples, other, strict=True))
    assert {e.image for e in other} == {e.image for e in examples}


def test_load_validation(tmp_path):
    talk = [
        {"from": "human", "value": "<image>\nWhat color?\nShort."}, {"from": "gpt", "value": "red"},
        {"from": "human", "value": "How many?\nShort."}, {"from": "gpt", "value": "2"},
    ]  # fmt: skip
    write_json(tmp_path / "validation/instruct.json", [{"id": "7", "image": "7.jpg", "conversations": talk}])
    write_json(tmp_path / "validation/families.json", {"7": ["color", "count"]})
    first, second = load_validation(tmp_path)
    assert (first.question_id, first.image, first.prompt) == ("7-0", "validation/images/7.jpg", "What color?\nShort.")
    assert second.meta == {"answer": "2", "family": "count"}
    write_json(tmp_path / "validation/families.json", {"7": ["color"]})
    with pytest.raises(ValueError, match=r"families\.json: record '7': expected 2 families, found 1"):
        load_validation(tmp_path)


def test_tables_say_whether_the_baseline_is_converged(tmp_path):
    base = result("none", [1, 0] * 50)
    base["families"] = {"color": {"value": 75.0, "se": 2.0, "prior": 20.0, "shuffled": 15.0, "n": 50}}
    write_json(tmp_path / "validation/none/seed0.json", base)
    write_json(tmp_path / "validation/stf/seed0.json", result("stf", [1, 1] * 50))
    found = convergence(tmp_path, {"stf": "STF"})
    assert found.frame["Verdict"].tolist() == ["baseline", "baseline behind"]
    assert "baseline is behind STF" in found.caption
    assert controls(tmp_path).frame.iloc[0].tolist() == ["color", "75.0 ±3.9", "20.0", "15.0", "50"]
    assert convergence(tmp_path / "nothing", {}).frame.empty
