"""The claims file: complete, consistent with the tables it names, and refused with a clear message where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from visiontokens.analyze.errata import errata
from visiontokens.config import ConfigError, load_config, load_experiments, read_experiments
from visiontokens.verify.claims import CLAIMS, load_claims, uncovered
from visiontokens.verify.judge import KINDS
from visiontokens.verify.kinds import Recompute

SCALES = Path("config/scales")


@pytest.fixture(scope="module")
def claims():
    return load_claims()


@pytest.fixture
def changed(tmp_path):
    """Return a function that writes the claims file with a change and gives its path."""

    def write(change):
        values = yaml.safe_load(CLAIMS.read_text(encoding="utf-8"))
        change(values)
        path = tmp_path / "claims.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return write


def rows_of(test):
    """Return the experiments that a test names."""
    return {name for pair in getattr(test, "pairs", ()) for name in pair} | set(
        test.rows if test.kind == "falls" else ()
    )


def test_every_published_number_is_claimed_or_excluded_with_a_reason(claims):
    rest = uncovered(claims)
    assert rest.empty, rest[["paper", "table", "row", "column"]].to_string()
    assert all(gap.because for gap in claims.excluded)


def test_without_a_claim_its_numbers_are_missed(claims):
    fewer = claims.model_copy(update={"claims": tuple(c for c in claims.claims if c.where != "Fig. 1 right")})
    assert set(uncovered(fewer)["table"]) == {"fig1_right"}


def test_every_scale_has_a_run_and_every_run_a_scale(claims):
    names = {load_config([*_below(path), path]).scale for path in SCALES.glob("*.yaml")}
    assert set(claims.runs) == names


def _below(path):
    """Return the files that a scale file is laid over."""
    base = {"paper-13b": ["paper"], "paper-lora": ["paper"], "smoke-video": ["smoke"]}
    return [SCALES / f"{name}.yaml" for name in base.get(path.stem, ())]


def test_the_rows_of_a_test_are_run_at_its_scales(claims):
    """Else the ledger would send a reader to a command that does not decide the claim."""
    known = read_experiments(Path("config/experiments.tsv"))
    run = {
        name: set(load_experiments(load_config([*_below(SCALES / f"{name}.yaml"), SCALES / f"{name}.yaml"])))
        for name in claims.runs
    }
    for claim in claims.claims:
        for test in claim.tests:
            assert rows_of(test) <= set(known), claim.id
            for scale in test.scales:
                assert rows_of(test) <= run[scale], f"{claim.id}: {sorted(rows_of(test) - run[scale])} at {scale}"


def test_every_kind_is_judged_and_used(claims):
    used = {type(test) for claim in claims.claims for test in claim.tests}
    assert used == set(KINDS)
    assert all(test.asks and test.because for claim in claims.claims for test in claim.tests)


def test_recomputed_numbers_exist_and_all_of_them_are_in_a_claim(claims):
    left = errata()
    left = left[left["quantity"] != "GQA (second value: README)"]
    for claim in claims.claims:
        for test in claim.tests:
            if isinstance(test, Recompute):
                chosen = (left["paper"] == claim.paper) & left["quantity"].isin(test.quantities)
                if test.tables:
                    chosen &= left["table"].isin(test.tables)
                assert chosen.any(), claim.id
                left = left[~chosen]
    assert left.empty, left[["table", "row", "quantity"]].to_string()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["claims"][0].update(colour="red"), ["claims.0.colour", "Extra inputs"]),
        (lambda v: v["claims"][0].update(id="C7"), ["expected C1, C2"]),
        (lambda v: v["claims"][0]["cites"][0].update(table="fig9"), ["C1", "'fig9'", "no such published number"]),
        (lambda v: v["claims"][0]["cites"][0].update(rows=["LLaVA-3"]), ["C1", "LLaVA-3"]),
        (lambda v: v["claims"][0]["tests"][0].update(scales=["mega"]), ["C1", "'mega'"]),
        (lambda v: v["claims"][0]["tests"][0].update(kind="guess"), ["tests.0"]),
        (lambda v: v["claims"][0]["tests"][0].update(tolerance=-1), ["tests.0.level.tolerance"]),
        (lambda v: v["claims"][0].update(tests=[]), ["untested"]),
        (lambda v: v["claims"][0]["tests"].append(v["claims"][0]["tests"][0]), ["two tests for one scale"]),
        (lambda v: v["runs"]["mini"].update(level="huge"), ["runs.mini.level"]),
    ],
)
def test_a_wrong_file_is_refused_by_name(changed, change, words):
    path = changed(change)
    with pytest.raises(ConfigError) as err:
        load_claims(path)
    for word in (str(path), *words):
        assert word in str(err.value)
