"""Vision-token compression: one contract (`base`), one file per method."""

from visiontokens.compress.base import Compressor, Geometry, MethodError, MethodSpec, Seq, VisionIn, register

__all__ = ["Compressor", "Geometry", "MethodError", "MethodSpec", "Seq", "VisionIn", "register"]
