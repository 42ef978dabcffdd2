"""The frozen prefix: the frozen layers' outputs are computed once, not once per epoch.

If the embeddings and the first k layers are frozen, they run without dropout, and a text's state after them is the
same in every epoch:

    state_k(text) = run(embed(text), 0, k)             computed once, in large batches, and cached
    loss          = objective(head(finish(run(state_k, k, L))), labels)

So an epoch computes L - k layers instead of L. If the whole backbone is frozen, only the vector per text that the head
reads is cached, and an epoch takes almost no time.

The cache contains the vectors of all texts without padding, one text after another: (tokens, D). It is in memory (the
GPU's, if there is room) within the budget, and beyond it in a file. If the disk is full too, nothing is cached and all
layers run.

Several processes on one machine compute a part each, and share a file.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minilm.data.batching import collate, evaluation_batches, length_multiple
from minilm.data.tokenization import Encoded
from minilm.devices import Runtime
from minilm.evaluation.predictor import Forward
from minilm.finetuning.freezing import frozen_layers
from minilm.models.architecture import Backbone, evaluation_mode
from minilm.models.batch import Batch, State
from minilm.models.heads import ClassificationHead
from minilm.training.console import progress_bar
from minilm.world import barrier, deal_out, largest, world

MIB = 2**20


@dataclass
class FrozenPrefix:
    """The cached states of some splits after a model's frozen layers; made by ``cache_activations``."""

    layers: int  # the number of frozen layers
    of: int  # the number of all layers of the model
    splits: dict[str, CachedSplit] = field(default_factory=dict)
    wanted: int = 0  # the number of splits that should be cached
    seconds: float = 0.0  # time to compute the states
    memory: int = 0  # bytes in memory
    disk: int = 0  # bytes in files

    def forward(self, split: str, model: Backbone) -> Forward:
        """The function that computes the scores of a split's texts: from the cache, or if there is none, from the
        ids."""
        kept = self.splits.get(split)
        return (lambda batch, rows: model(batch)) if kept is None else kept.forward(model)

    def __str__(self) -> str:
        if not self.splits:
            return ""
        room = f"{self.memory / MIB:,.0f} MiB" if self.memory or not self.disk else ""
        room += (", " if room else "") + f"{self.disk / MIB:,.0f} MiB on disk" if self.disk else ""
        only = f" ({', '.join(self.splits)} texts only)" if len(self.splits) < self.wanted else ""
        return f"{self.layers} of {self.of} layers cached: {room}{only}"


@dataclass
class CachedSplit:
    """The cached states of one split of N texts."""

    layers: int
    offsets: np.ndarray  # (N + 1,) text i is in rows offsets[i] to offsets[i + 1] - 1 of each tensor
    tensors: dict[str, Tensor]  # "x" and, in T5's decoder, "memory": (tokens + 1, D), the last row zero; or "z": (N, D)

    def forward(self, model: Backbone) -> Forward:
        """The function that computes the scores of a batch, on the model's device, from its row numbers (B,)."""
        return lambda batch, rows: self._scores(model, batch, rows)

    def _scores(self, model: Backbone, batch: Batch, rows: np.ndarray) -> Tensor:
        if "z" in self.tensors:
            kept = self.tensors["z"]
            z: Tensor = kept[torch.from_numpy(rows).to(kept.device)].to(batch.ids.device)
            return model.classify(z)
        columns = np.arange(batch.ids.shape[1])  # (T,)
        starts, ends = self.offsets[rows][:, None], self.offsets[rows + 1][:, None]
        places = torch.from_numpy(np.where(starts + columns < ends, starts + columns, self.offsets[-1]))  # (B, T)
        padded = {
            name: F.embedding(places.to(kept.device), kept).to(batch.ids.device) for name, kept in self.tensors.items()
        }
        return model(batch, state=State(**padded), first=self.layers)


def cache_activations(
    model: Backbone, splits: dict[str, Encoded], runtime: Runtime, *, pad: int, budget: int, folder: Path
) -> FrozenPrefix:
    """Run the model's frozen layers over all texts of these splits, and cache as many splits as possible, in order.

    Args:
        model: on its device, and frozen as it will train.
        splits: the texts by split.
        runtime: the device and precision in which the frozen layers run.
        pad: the padding id.
        budget: bytes of memory for all splits together; 0: no cache.
        folder: for the files of states that do not fit in memory; files of an earlier run are removed.
    """
    if world().local_rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
    barrier()
    prefix = FrozenPrefix(max(frozen_layers(model), 0), model.num_layers, wanted=len(splits))
    started = time.perf_counter()
    if prefix.layers and budget:
        builder = _Builder(model, prefix.layers, runtime, pad, budget, folder)
        texts = sum(map(len, splits.values()))
        with evaluation_mode(model), torch.no_grad(), runtime.autocast(), progress_bar(texts, 0, "text") as bar:
            for split, encoded in splits.items():
                kept = builder.cache(split, encoded, done=bar.update)
                if kept is None:
                    break
                prefix.splits[split] = kept
        prefix.memory, prefix.disk = builder.memory, builder.disk
    prefix.seconds = time.perf_counter() - started
    return prefix


@dataclass
class _Builder:
    """Runs the frozen layers over the texts of one split after another, and allocates the cache."""

    model: Backbone
    layers: int  # the number of frozen layers
    runtime: Runtime
    pad: int
    budget: int  # bytes of memory that may be used
    folder: Path  # for files, when the budget is used up
    memory: int = 0  # bytes of memory in use
    disk: int = 0

    def cache(self, split: str, encoded: Encoded, done: Callable[[int], object]) -> CachedSplit | None:
        """The outputs for these texts; None if there is no room. ``done`` is called with the number of finished
        texts."""
        tensors: dict[str, Tensor] = {}
        pooled = _head_alone_trains(self.model)
        total = len(encoded) if pooled else int(encoded.offsets[-1]) + 1
        runtime = self.runtime
        multiple = length_multiple(encoded.lengths, runtime.most_lengths)
        limits = (runtime.tokens_at_once, runtime.batch_overhead, multiple)
        batches = list(evaluation_batches(encoded.lengths, *limits))
        for rows, is_mine in deal_out(batches, on_this_machine=True):
            batch = collate(encoded, rows, None, self.pad, multiple=multiple, limit=self.model.context)
            batch = batch.to(runtime.device)
            given = {"z": self.model.pooled(batch)} if pooled else _state(self.model, batch, self.layers)
            tensors = tensors or self._room(split, given, total)
            if not tensors:
                return None
            if not is_mine:
                continue
            real = torch.ones_like(batch.ids, dtype=torch.bool) if batch.mask is None else batch.mask
            places = torch.from_numpy(rows if pooled else encoded.places(rows))
            for name, values in given.items():
                kept = tensors[name]
                kept[places.to(kept.device)] = (values if pooled else values[real]).to(kept.device)
            done(world().local_size * len(rows))
        barrier()
        return CachedSplit(self.layers, encoded.offsets, {key: self._near(kept) for key, kept in tensors.items()})

    def _room(self, split: str, like: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
        """Zero tensors of ``rows`` rows, in memory or in files; {} if there is no room.

        Several processes on one machine share files, whose pages are in memory once.
        """
        shapes = {key: (rows, values.shape[-1]) for key, values in like.items()}
        size = sum(prod(shapes[key]) * values.element_size() for key, values in like.items())
        if self.memory + size <= self.budget and world().size == 1:
            self.memory += size
            device = self.runtime.device if 2 * size <= self._free_on_gpu() else "cpu"
            return {key: torch.zeros(shape, dtype=like[key].dtype, device=device) for key, shape in shapes.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        if largest(2 * size > shutil.disk_usage(self.folder).free):  # on any machine, as all must do the same
            return {}
        self.disk += size
        return {
            key: torch.from_file(  # mapped: pages are loaded when needed; new pages are zero
                str(self.folder / f"{split}-{key}.bin"), shared=True, size=prod(shape), dtype=like[key].dtype
            ).view(shape)
            for key, shape in shapes.items()
        }

    def _near(self, kept: Tensor) -> Tensor:
        """What several processes have computed, on the GPU of this one if there is room."""
        size = kept.numel() * kept.element_size()
        return kept.to(self.runtime.device) if world().size > 1 and 2 * size <= self._free_on_gpu() else kept

    def _free_on_gpu(self) -> int:
        """Bytes; 0 on a CPU."""
        on_gpu = self.runtime.device.type == "cuda"
        return torch.cuda.mem_get_info(self.runtime.device)[0] if on_gpu else 0


def _state(model: Backbone, batch: Batch, layers: int) -> dict[str, Tensor]:
    """The input of the layers after the frozen ones: x, and in T5's decoder the memory, (B, T, D) each."""
    state = model.states(batch, layers)
    return {"x": state.x} if state.memory is None else {"x": state.x, "memory": state.memory}


def _head_alone_trains(model: Backbone) -> bool:
    """Whether no parameter outside the classification head trains."""
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return isinstance(model.head, ClassificationHead) and all(name.startswith("head.") for name in trained)

