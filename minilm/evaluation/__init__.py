"""Judging a classifier: metrics, baselines, predictions, statistics."""
