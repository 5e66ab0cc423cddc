"""No compression: LLaVA-1.5 as published, all patch tokens in all layers."""

from __future__ import annotations

from types import MappingProxyType

from visiontokens.compress.base import Compressor, MethodParams, register


@register("none")
class NoCompression(Compressor[MethodParams]):
    """The identity at every seam."""

    identity = MappingProxyType({})
