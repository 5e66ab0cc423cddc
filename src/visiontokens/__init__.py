"""visiontokens: a reproducible artifact for vision-token compression in LLaVA-style multimodal models.

`visiontokens.load` and `visiontokens.convert` are imported on first use: the package itself loads no library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visiontokens.models.convert import convert
    from visiontokens.models.library import load

__version__ = "0.1.0"
__all__ = ["__version__", "convert", "load"]


def __getattr__(name: str) -> Any:
    """Import `load` and `convert` when they are asked for."""
    if name == "load":
        from visiontokens.models.library import load

        return load
    if name == "convert":
        from visiontokens.models.convert import convert

        return convert
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
