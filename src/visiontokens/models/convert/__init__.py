"""Checkpoints in and out: official LLaVA and LLaVA-STF releases, the hub's layout, and this package's own."""

from visiontokens.models.convert.names import from_official
from visiontokens.models.convert.official import load_official, read_official
from visiontokens.models.convert.run import Conversion, convert

__all__ = ["Conversion", "convert", "from_official", "load_official", "read_official"]
