"""Verdicts: the decision rules on known estimates, and the whole ledger on made-up results."""

from __future__ import annotations

import csv
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_board import write_board

from visiontokens.analyze.stats import Estimate
from visiontokens.verify.claims import load_claims
from visiontokens.verify.evidence import Difference, Evidence
from visiontokens.verify.judge import judge
from visiontokens.verify.ledger import FILES, Ledger
from visiontokens.verify.scores import judged
from visiontokens.verify.verdict import FAIL, NOT_RUN, PASS, Line, together

ROWS = {
    "none": 0.80,
    "stf-mbtf": 0.80,
    "stf": 0.70,
    "avgpool": 0.60,
    "vcc-2-8": 0.70,
    "vcc-2-8-test": 0.50,
    "random-2-8-test": 0.20,
    "kmeans-2-8-test": 0.40,
    "fastv-2-8-test": 0.40,
    "volta-four-wider-deeper": 0.79,
    "volta-last-stage": 0.50,
    "progressive-test": 0.60,
    "vcc-8-8-test": 0.50,
}
BY_STATEMENT = {
    "With a quarter": PASS,
    "At the same 25%": PASS,
    "Each module helps": PASS,
    "Average pooling loses most": NOT_RUN,  # VizWiz was not scored
    "Trained with staged compression and tested without": NOT_RUN,  # a point of 100, known to about a point
    "Compressed also at test time": FAIL,
    "It is even better": FAIL,
    "Without retraining, random dropping": PASS,
    "Without retraining, FastV": FAIL,
    "Retraining repairs": PASS,
    "Retraining helps the other": NOT_RUN,
    "Constant heavy compression": PASS,
    "Without retraining, compressing layer by layer": PASS,
    "Token counts and ratios are the means": FAIL,
    "The stages have the printed": PASS,
    "The method is ahead of other": NOT_RUN,
}


def verdict_of(value, se, kind, tolerance=1.0, pairs=1):
    return judged("a − b", Difference(Estimate(value, se), 1000), tolerance, kind, pairs=pairs)


@pytest.mark.parametrize(
    ("value", "se", "kind", "word"),
    [
        (3.0, 1.0, "ordering", PASS),
        (1.5, 1.0, "ordering", NOT_RUN),
        (0.0, 0.4, "ordering", FAIL),  # whatever lead there is, is below the tolerance
        (-3.0, 1.0, "ordering", FAIL),
        (0.0, 0.5, "level-lower", PASS),
        (0.0, 0.7, "level-lower", NOT_RUN),
        (3.0, 1.0, "level-lower", PASS),  # better is not worse
        (3.0, 0.5, "level-both", FAIL),
        (-4.0, 1.0, "level-lower", FAIL),
        (-2.0, 1.0, "level-lower", NOT_RUN),
        (0.5, 1.0, "step", PASS),
        (3.0, 1.0, "step", FAIL),
        (0.9, 0.1, "step", PASS),  # certain, and too small to count
    ],
)
def test_decisions_rest_on_intervals(value, se, kind, word):
    assert verdict_of(value, se, kind).verdict == word


def test_several_pairs_need_more_certainty_each():
    assert verdict_of(2.2, 1.0, "ordering").verdict == PASS
    assert verdict_of(2.2, 1.0, "ordering", pairs=4).verdict == NOT_RUN


@given(st.floats(-3, 3), st.floats(0.05, 2), st.sampled_from(["ordering", "level-lower", "level-both"]))
def test_the_questions_that_are_asked_for_decide(value, se, kind):
    """With so many questions, and the difference unchanged, the verdict is no longer open."""
    line = verdict_of(value, se, kind)
    if line.verdict == NOT_RUN and "lies on the tolerance" not in line.reason:
        needed = int(line.reason.split("n >= ")[1].split(" ")[0].replace(",", ""))
        assert needed > 1000
        again = Difference(Estimate(value, 0.999 * se * math.sqrt(1000 / needed)), needed)
        assert judged("a − b", again, 1.0, kind).verdict != NOT_RUN


def test_seeds_can_be_what_is_missing():
    found = Difference(Estimate(0.5, 0.1, spread=3.0, seeds=2), 1000)
    assert "more seeds are needed" in judged("a − b", found, 1.0, "level-lower").reason


def test_one_failing_line_is_enough_and_one_open_line_keeps_the_claim_open():
    lines = [Line("a", PASS, "", ""), Line("b", NOT_RUN, "", "", "not run at this scale: x"), Line("c", FAIL, "", "")]
    assert together(lines) == (FAIL, "1 of 3 do not hold")
    other = Line("d", NOT_RUN, "", "", "not run at this scale: y, x")
    assert together([*lines[:2], other]) == (NOT_RUN, "2 of 3 open: not run at this scale: x, y")
    assert together(lines[:1]) == (PASS, "")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    root = write_board(tmp_path_factory.mktemp("results") / "mini", ROWS, questions=1200)
    return of(root, "mini")


def of(root, scale):
    """Return the ledger of made-up results, judged as those of a scale."""
    claims, evidence = load_claims(), Evidence.load(root, Path("config"))
    evidence.resamples = 100
    evidence.unconverged = {}  # the made-up validation files are another matter
    return Ledger(scale, claims, judge(claims, scale, evidence), evidence.book.published, evidence.errata)


def find(ledger, start):
    (found,) = (verdict for verdict in ledger.verdicts if verdict.claim.statement.startswith(start))
    return found


def test_no_claim_is_unaccounted_for(ledger):
    assert [v.claim.id for v in ledger.verdicts] == [c.id for c in load_claims().claims]
    assert sum(ledger.counts.values()) == len(ledger.verdicts)
    for verdict in ledger.verdicts:
        assert verdict.verdict in {PASS, FAIL, NOT_RUN}
        assert verdict.reason or verdict.lines, f"{verdict.claim.id}: neither numbers nor a reason"
        assert all(line.reason for line in verdict.lines if line.verdict == NOT_RUN)


@pytest.mark.parametrize("start", BY_STATEMENT)
def test_verdicts_follow_from_the_numbers(ledger, start):
    found = find(ledger, start)
    assert found.verdict == BY_STATEMENT[start], list(found.lines) or found.reason


def test_what_was_not_run_says_by_which_command(ledger):
    assert "run by: make verify SCALE=mini-full" in find(ledger, "Retraining helps the other").reason
    assert find(ledger, "LLaVA-1.5-7B scores").reason.startswith("needs scale reviewer or paper: make verify")
    assert "vizwiz not scored" in find(ledger, "Average pooling loses most").lines[0].reason


def test_numbers_come_with_interval_and_what_it_covers(ledger):
    (line,) = find(ledger, "At the same 25%").lines
    assert line.low < line.value < line.high
    assert line.value == pytest.approx(20, abs=4)
    assert "questions only, one seed" in line.found


def test_with_several_seeds_the_interval_covers_them(tmp_path):
    few = {name: ROWS[name] for name in ("stf-mbtf", "avgpool")}
    (line,) = find(of(write_board(tmp_path / "mini", few, seeds=3), "mini-full"), "At the same 25%").lines
    assert "questions and 3 seeds" in line.found


def test_results_of_a_scale_whose_numbers_mean_nothing_judge_recomputed_numbers_only(ledger, tmp_path):
    root = write_board(tmp_path / "smoke", {"none": 0.8, "stf-mbtf": 0.8})
    for verdict in of(root, "smoke").verdicts:
        analytic = bool(verdict.claim.tests) and not verdict.claim.tests[0].scales
        assert analytic or verdict.verdict == NOT_RUN
        assert not analytic or verdict.verdict == find(ledger, verdict.claim.statement).verdict
    unknown = of(root, "my-own").verdicts[0]
    assert (unknown.verdict, "'my-own' is not among the runs" in unknown.reason) == (NOT_RUN, True)


def test_an_unconverged_baseline_is_not_compared_with(tmp_path):
    root = write_board(tmp_path / "mini", {"none": 0.8, "stf-mbtf": 0.8})
    evidence = Evidence.load(root, Path("config"))
    evidence.unconverged = {"stf-mbtf": "2.0 points, seed 0"}
    found = judge(load_claims(), "mini", evidence)[0]
    assert found.verdict == NOT_RUN
    assert "the baseline is not converged: stf-mbtf is ahead" in found.lines[0].reason


class Page(HTMLParser):
    """Collects what must hold for a page that is read offline and by keyboard."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [found[key] for key in ("href", "src") if key in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_ledger_is_written_in_every_form(ledger, tmp_path):
    assert [path.name for path in ledger.write(tmp_path)] == list(FILES)
    data = json.loads((tmp_path / "ledger.json").read_text(encoding="utf-8"))
    ids = [claim.id for claim in ledger.claims.claims]
    assert [row["id"] for row in data["claims"]] == ids
    assert data["counts"] == ledger.counts
    assert all(line["arithmetic"] for line in data["errata"])
    with (tmp_path / "ledger.csv").open(encoding="utf-8", newline="") as handle:
        assert list(dict.fromkeys(row["id"] for row in csv.DictReader(handle))) == ids
    for name in ("ledger.md", "ledger.txt"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert all(f"{number} " in text for number in ids) and ledger.headline in " ".join(text.split())
    page = Page()
    page.feed((tmp_path / "ledger.html").read_text(encoding="utf-8"))
    assert not page.open
    assert set(ids) <= set(page.ids)
    local = {link.removeprefix("#") for link in page.links}
    assert local <= {*page.ids, *FILES}, "the page needs nothing from elsewhere"


def test_the_arithmetic_of_a_slip_in_print_is_in_the_ledger(ledger):
    lines = find(ledger, "Token counts and ratios are the means").lines
    (line,) = (line for line in lines if "Two stages, #Tokens" in line.what)
    assert (line.verdict, line.value) == (FAIL, 10872)
    assert line.reason.startswith("((2*576 + 30*72) + 32*576) / 2")
