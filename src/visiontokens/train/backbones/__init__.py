"""Pretraining of the mini backbones from seeds: the vision tower and the language model."""
