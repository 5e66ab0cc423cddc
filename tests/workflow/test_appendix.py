"""The table of claims in the appendix is that of the claims file."""

from __future__ import annotations

from planning import ROOT

from visiontokens.verify.appendix import with_claims
from visiontokens.verify.claims import load_claims

PAGE = ROOT / "ARTIFACT.md"


def test_the_appendix_is_generated_from_the_claims() -> None:
    text = PAGE.read_text(encoding="utf-8")
    path, folder = ROOT / "config/claims.yaml", ROOT / "data/reference"
    assert with_claims(text, PAGE, path, folder) == text, "run: visiontokens claims"


def test_every_claim_has_its_place_and_command() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for claim in load_claims(ROOT / "config/claims.yaml", ROOT / "data/reference").claims:
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {claim.id} | {claim.statement}"))
        assert claim.where in line and ("make verify" in line or "-- verify" in line or "not tested" in line)
