"""LLaVA with hook points, and the ways in and out of checkpoints."""
