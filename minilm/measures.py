"""The names of all metrics, and the ranges of measured numbers.

``minilm.evaluation.metrics`` defines and computes the metrics.
"""

from __future__ import annotations

from typing import Annotated

from minilm.schema import Limit

SINGLE_LABEL_METRICS = ("loss", "accuracy", "macro_precision", "macro_recall", "macro_f1", "mcc")
MULTI_LABEL_METRICS = ("loss", "subset_accuracy", "label_accuracy", "jaccard", "micro_f1", "macro_f1")
RANKING_METRICS = ("roc_auc", "average_precision")  # for both tasks; may be missing
CLASSIFICATION_METRICS = tuple(dict.fromkeys((*SINGLE_LABEL_METRICS, *MULTI_LABEL_METRICS, *RANKING_METRICS)))
LANGUAGE_METRICS = ("loss", "perplexity")
METRICS = tuple(dict.fromkeys((*LANGUAGE_METRICS, *CLASSIFICATION_METRICS)))
HIGHER_IS_BETTER = {name: name not in LANGUAGE_METRICS for name in METRICS}

# The ranges of numbers in the files of runs. Real values are inside these ranges, and numbers inside them can be added
# up, averaged and drawn.
Number = Annotated[int, Limit("a whole number from 0 to 2^53", lambda n: 0 <= n <= 2**53)]
Measured = Annotated[float, Limit("a number from 0 to 1e12", lambda x: 0 <= x <= 1e12)]
Correlation = Annotated[float, Limit("a number from -1 to 1", lambda x: abs(x) <= 1 + 1e-9)]  # 1e-9: rounding errors
Perplexity = Annotated[float, Limit("a number from 0 to 1e100", lambda x: 0 <= x <= 1e100)]
