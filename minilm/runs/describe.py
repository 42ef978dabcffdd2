"""``minilm info``: a table of a model's layers, without its weights."""

from __future__ import annotations

from pathlib import Path

from minilm.checkpoints.opening import holds_model, load_model
from minilm.config import BPETokenizerSection, RunConfig
from minilm.data.sources import load_dataset
from minilm.data.tokenization import load_tokenizer
from minilm.errors import located
from minilm.loading import load_config
from minilm.reporting.summary import summarize
from minilm.runs.assembly import make_model


def describe_model(model: str) -> str:
    """The table of layers for a config (TOML), a run's folder, a model's folder, a catalogue name or a Hub id.

    The model is built on torch's "meta" device, which has shapes but no memory, so this is quick for any size.
    """
    path = Path(model)
    if path.suffix != ".toml" and (path / "config.toml").exists() and not holds_model(path / "model"):
        path = path / "config.toml"  # a run that has not finished
    if path.suffix == ".toml":
        config = load_config(path)
        with located(str(path)):
            return summarize(make_model(config, _labels(config), _vocabulary(config), device="meta"))
    return summarize(load_model(path / "model" if (path / "model").is_dir() else model, device="meta"))


def _labels(config: RunConfig) -> list[str]:
    """The labels: those of the config or the catalogue, or else those in the data."""
    data = config.data
    return data.labels or data.label_columns or load_dataset(data).label_names


def _vocabulary(config: RunConfig) -> int:
    """The vocabulary size of the tokenizer, if that of the model depends on it; otherwise 0.

    A BPE trained on few texts may have fewer tokens.
    """
    own = config.model.config.get("vocab_size")
    if isinstance(own, int) or config.model.source:
        return 0
    if isinstance(config.tokenizer, BPETokenizerSection):
        return config.tokenizer.vocab_size
    return load_tokenizer(config.tokenizer.source).get_vocab_size()
