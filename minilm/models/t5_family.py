"""mT5 and umT5: T5 of version 1.1 for a hundred languages (Xue et al. 2021, Chung et al. 2023).

Their layers are T5's. What differs is the language head's scale, which their ``config.json`` does not say, and in umT5
the relative positions: each layer has a table of its own.

    mT5       scores = y W^T
    umT5      scores = (y / sqrt(D)) W^T            as the published class computes them now, also of its own matrix W
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from minilm.models.architecture import Architecture
from minilm.models.t5 import ARCHITECTURE, SETTINGS, T5Config, read, write


@dataclass(frozen=True)
class MT5Config(T5Config):
    """The settings of mT5; the defaults are those of the published class, the small model."""

    vocab_size: int = 250112
    depth: int = 8
    heads: int = 6
    mlp_width: int = 1024
    activation: str = "gelu_tanh"
    gated: bool = True
    scaled: bool = False


@dataclass(frozen=True)
class UMT5Config(MT5Config):
    """The settings of umT5; the defaults are those of the published class, the small model."""

    own_positions: bool = True
    scaled: bool = True


def _family(family: str, config: type[T5Config], **fixed: bool) -> Architecture[T5Config]:
    return replace(
        ARCHITECTURE,
        title=family,
        config=config,
        classes={task: name.replace("T5", family.upper()) for task, name in ARCHITECTURE.classes.items()},
        settings=SETTINGS,
        read=lambda published: read(published) | fixed,
        write=lambda config: write(config, family, **fixed),
    )


MT5 = _family("mT5", MT5Config, scaled=False, own_positions=False)
UMT5 = _family("umT5", UMT5Config, scaled=True, own_positions=True)
