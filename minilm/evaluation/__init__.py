"""Evaluation of classifiers: metrics, baselines, predictions, statistics."""
