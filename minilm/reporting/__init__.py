"""What a person reads of runs: pictures, the model's layers, a report, and comparisons.

All of it is made from the files in a run's folder (``results.json``, ``metrics.jsonl``, ``predictions.csv``,
``config.toml``, ``environment.json``), so that it can be made again at any time.
"""
