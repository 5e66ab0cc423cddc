"""Predictions and scores: two separate steps, joined by files of answers."""
