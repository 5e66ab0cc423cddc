"""visiontokens: a reproducible artifact for vision-token compression in LLaVA-style multimodal models."""

__version__ = "0.1.0"
