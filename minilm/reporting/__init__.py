"""Reports about runs for people: figures, a table of the model's layers, a report per run, and comparisons.

Everything is made from the files in a run's folder (``results.json``, ``metrics.jsonl``, ``predictions.csv``,
``config.toml``, ``environment.json``), so that it can be made again at any time.
"""
