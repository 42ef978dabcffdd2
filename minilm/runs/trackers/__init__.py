"""Experiment trackers that show a run on a dashboard while it trains: TensorBoard, Weights & Biases, MLflow.

Each works in a process of its own (``processes.py`` starts it, ``worker.py`` is it), so that no tracker can slow a
training or stop it. Each service has one file with one class, a ``Tracker`` (``protocol.py``).
"""
