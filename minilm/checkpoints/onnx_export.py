"""Save a classifier as an ONNX graph, which other runtimes compute without PyTorch, and compare it with the model.

    input_ids        (B, T) int64    token ids, padded on the right with any id
    attention_mask   (B, T) int64    1 at tokens, 0 at padding
    token_type_ids   (B, T) int64    0 in the first text of a pair, 1 in the second; only if the family reads segments
    logits           (B, C) float32  the scores of the classes

The names are those of the published classes, which the ecosystem's runtimes feed. B and T are free: one graph serves
batches of any size and texts up to the model's context. torch's exporter traces the model (``torch.export``), and its
graph is translated to the operators of ONNX.

A quantized graph has 8-bit integers in place of most weights, so it has a quarter of the size. Before each product with
such a matrix, the vectors are rounded to 8 bits too, in a range that is measured at that moment ("dynamic").
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minilm.checkpoints.models import reads_segments
from minilm.errors import UserError
from minilm.hints import install
from minilm.models.architecture import Backbone, BackboneConfig
from minilm.models.batch import Batch

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "logits"
LARGEST = 1_900_000_000  # bytes of weights in the graph's own file, whose format ends at 2^31; more need a second file
QUANTIZED = ("MatMul", "Gemm", "Gather")  # operators whose weights become 8-bit integers: matrices and tables
LENGTHS = ((1,), (7, 5), (33, 1, 20))  # texts of the comparison, in tokens


def input_names(config: BackboneConfig) -> tuple[str, ...]:
    """The names of the graph's inputs."""
    return INPUTS if reads_segments(config) else INPUTS[:2]


class _Graph(nn.Module):
    """The model with the inputs of the graph."""

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """(B, T) each -> (B, C)."""
        scores: Tensor = self.model(Batch(input_ids, attention_mask.bool(), token_type_ids))
        return scores


def check_installed() -> None:
    """Raise UserError if a package of the extra ``onnx`` is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--onnx needs the package {error.name}; to install it: {install('onnx')}") from None


def write_onnx(model: Backbone, path: Path) -> None:
    """Save a classifier as an ONNX graph.

    Args:
        model: in float32 on the CPU, in evaluation mode, with a classification head; its adapters are merged.
        path: the graph's file. Weights of more than 1.9 GB are in ``PATH.data``.
    """
    names = input_names(model.config)
    graph, example = _Graph(model).eval(), _draw(model, (7, 5))
    arguments = tuple(_feed(example, names).values())
    # The graph takes shorter texts too. The tracer only wants no length that is 1, also minus one (in a decoder).
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", min=3)}
    size = sum(parameter.nbytes for parameter in model.parameters())
    with torch.no_grad(), _quiet():
        graph(*arguments)  # tables that are computed once must not be computed while the graph is traced
        shapes = tuple(free for _ in names)
        traced = torch.export.export(graph, arguments, dynamic_shapes=shapes, strict=False)
        program = torch.onnx.export(
            traced, input_names=names, output_names=[OUTPUT], dynamic_shapes=shapes, dynamo=True, verbose=False
        )
        assert program is not None  # with dynamo
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # the lines of code that it comes from, with this machine's paths
        program.save(path, external_data=size > LARGEST)


def quantize(path: Path, quantized: Path) -> None:
    """Save a graph with 8-bit integers in place of its matrices and tables.

    Each column of a matrix has a scale of its own.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    large = path.with_name(f"{path.name}.data").exists()
    with _quiet():
        quantize_dynamic(
            path,
            quantized,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
        )


def open_graph(path: Path) -> Callable[[Batch], Tensor]:
    """A function that computes the scores (B, C) of a batch with a graph, on the CPU with as many threads as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def scores(batch: Batch) -> Tensor:
        feed = {name: tensor.numpy() for name, tensor in _feed(batch, names).items()}
        return torch.from_numpy(session.run([OUTPUT], feed)[0])

    return scores


def largest_difference(model: Backbone, path: Path) -> float:
    """The largest difference between the scores of a graph and of its model, for random texts of several lengths.

    Raises RuntimeError if it is more than rounding, 1e-3 of the largest score (or of 1, if all are smaller).
    """
    graph, largest, found = open_graph(path), 1.0, 0.0
    with torch.inference_mode():
        for lengths in LENGTHS:
            batch = _draw(model, lengths)
            wanted = model(batch)
            found = max(found, float((graph(batch) - wanted).abs().max()))
            largest = max(largest, float(wanted.abs().max()))
    if not found <= 1e-3 * largest:
        raise RuntimeError(f"{path}: its scores differ by {found:.2g} from the model's")
    return found


def _draw(model: Backbone, lengths: tuple[int, ...]) -> Batch:
    """Random texts of these lengths, or of the context if that is shorter; the same each time."""
    rng = np.random.default_rng(0)
    limits = np.minimum(lengths, model.context or max(lengths))
    shape = len(limits), int(limits.max())
    mask = torch.from_numpy(np.arange(shape[1]) < limits[:, None])
    ids = torch.from_numpy(rng.integers(0, model.config.vocab_size, shape))
    segments = torch.from_numpy(rng.integers(0, 2, shape)) if reads_segments(model.config) else None
    return Batch(ids, mask, segments)


def _feed(batch: Batch, names: tuple[str, ...] | list[str]) -> dict[str, Tensor]:
    """The inputs of a graph, (B, T) int64 each."""
    mask = torch.ones_like(batch.ids) if batch.mask is None else batch.mask.long()
    segments = torch.zeros_like(batch.ids) if batch.segments is None else batch.segments
    return {name: value for name, value in zip(INPUTS, (batch.ids, mask, segments), strict=True) if name in names}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's and the quantizer's remarks on their own steps. Errors are raised as always."""
    loggers: list[Any] = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    root = logging.getLogger()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        root.addFilter(_drop)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(_drop)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _drop(record: logging.LogRecord) -> bool:
    """Whether a line of the root logger, which the quantizer uses, is an error."""
    return record.levelno >= logging.ERROR
