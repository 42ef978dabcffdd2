"""``export.json``, a file of an exported classifier: all that a program needs beside the graph and the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from minilm.config import Fraction, Positive
from minilm.measures import Measured, Number
from minilm.reporting.tables import metric_name

FACTS = "export.json"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The ONNX graph, see ``minilm.checkpoints.onnx_export``."""

    file: str
    megabytes: Measured  # of 10^6 bytes, with its weights
    inputs: list[str]  # (B, T) int64 each
    output: str  # (B, C) float32
    largest_difference: Measured  # of its scores from the model's in float32


@dataclass(frozen=True, kw_only=True)
class QuantizedGraph:
    """The graph with 8-bit integers, and its metrics on the validation texts of the run beside those of the model."""

    file: str
    megabytes: Measured
    texts: Number = 0  # validation texts; 0: not measured
    same_labels: Number = 0  # of these texts: how many get the same labels from both
    float32: dict[str, float] = field(default_factory=dict)  # metric -> its value for the model
    int8: dict[str, float] = field(default_factory=dict)  # the same for this graph
    unmeasured: str = ""  # why nothing was measured

    @property
    def compared(self) -> str:
        """What 8-bit integers cost, in words."""
        if not self.texts:
            return f"what 8-bit integers cost was not measured ({self.unmeasured})"
        metrics = ", ".join(f"{metric_name(key)} {self.int8[key]:.4f} ({self.float32[key]:.4f})" for key in self.int8)
        same = f"{self.same_labels:,} of them get the same labels"
        return f"on the {self.texts:,} validation texts {metrics}, in brackets the model's; {same}"


@dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """How texts become the inputs of the graph, and its scores z become labels.

    single    p = softmax(z / temperature); the most probable label, or if there is a threshold the second of two labels
              from that probability on
    multi     p = sigmoid(z / temperature); each label from its threshold on
    score     z, or sigmoid(z) unless ``raw``
    """

    minilm: str  # the version that wrote it
    labels: list[str]  # (C,)
    kind: Literal["single", "multi", "score"]
    temperature: list[Positive]  # one number; with several labels, one each
    threshold: Fraction | list[Fraction] | None = None  # None, which the file leaves out: the most probable label
    raw: bool = False
    max_tokens: Number  # longer texts are cut
    truncation_side: Literal["left", "right"]
    pad_id: Number
    clean: list[str]  # steps by which texts were cleaned in training (data.clean)
    pairs: bool  # whether it reads pairs of texts
    onnx: Graph
    int8: QuantizedGraph | None = None
