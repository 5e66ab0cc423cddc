"""Method names, parameters and files: what is wrong is named, with what is known and what is near."""

import pytest
from pydantic import ValidationError

from visiontokens.compress import Compressor, MethodError, MethodSpec, register
from visiontokens.compress.base import lookup, methods


def test_every_method_is_found_without_importing_it():
    assert {"none", "avgpool", "stf", "mbtf", "stf_mbtf", "vcc"} <= methods().keys()
    assert all(cls.name == name for name, cls in methods().items())


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("stf_mtbf", {}, r"did you mean 'stf_mbtf'\?\); known methods: .*vcc"),
        ("stf", {"windo": 3}, r"unknown parameter 'windo' \(did you mean 'window'\?\); known: window, expand, fusion"),
        ("none", {"x": 1}, "unknown parameter 'x'; known: none"),
        ("stf", {"window": 0}, "window: .*greater than or equal to 1"),
        ("stf", {"fusion": "mix"}, "fusion: .*'concat2x2'"),
        ("vcc", {"layer": "2-32"}, "depth must look like '2/32'"),
        ("vcc", {"layer": 0, "stride": 2}, "needs layer >= 1, or -1"),
    ],
)
def test_mistakes_are_explained(name, params, words):
    with pytest.raises(ValidationError, match=words):
        MethodSpec(name=name, params=params)


def test_files(tmp_path):
    good = tmp_path / "good.yaml"
    good.write_text("name: avgpool\nparams: {window: 3}\n")
    assert MethodSpec.from_yaml(good) == MethodSpec(name="avgpool", params={"window": 3})
    with pytest.raises(FileNotFoundError, match="holds: good"):
        MethodSpec.from_yaml(tmp_path / "other.yaml")
    for text, words in (
        ("nam: avgpool\n", r"unknown key 'nam' \(did you mean 'name'\?\)"),
        ("- 1\n", "expected a mapping"),
        ("name: avgpol\n", r"bad\.yaml: .*did you mean 'avgpool'"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(MethodError, match=words):
            MethodSpec.from_yaml(tmp_path / "bad.yaml")


def test_stored_in_a_checkpoint_and_read_back():
    method = MethodSpec(name="vcc", params={"layer": "16/32", "stride": 4}, note="not stored")
    assert MethodSpec.from_config(method.to_config()) == MethodSpec(name="vcc", params=method.params)
    assert MethodSpec.from_config(None).name == "none"


def test_a_name_is_given_once():
    assert lookup("none").name == "none"
    with pytest.raises(MethodError, match="registered twice"):

        @register("none")
        class Other(Compressor):
            pass
