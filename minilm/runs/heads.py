"""The new head of a run, from its config and from the pooling of a sentence model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from minilm.checkpoints.sentence_models import read_pooling
from minilm.config import FamilyHeadSection, HeadSection, MLPHeadSection
from minilm.models.architecture import Architecture, Backbone
from minilm.models.heads import HeadConfig, mlp_head

log = logging.getLogger("minilm")


def new_head(
    section: HeadSection, architecture: Architecture, model_config: Any, folder: Path | None = None
) -> HeadConfig | None:
    """The MLP head of the config; None: the family's own head.

    By default its input is the pooling of a sentence model, or else that of the family's own head. If that is the
    pooler's, it is the first token's vector, as the hidden layer replaces the pooler.
    """
    if isinstance(section, FamilyHeadSection):
        return None
    pooling: str = section.pooling
    if pooling == "auto":
        usual = architecture.classification_head(model_config).pooling
        pooling = read_pooling(folder) or ("cls" if usual == "pooler" else usual)
    return mlp_head(
        model_config.width,
        hidden=section.hidden,
        pooling=pooling,
        norm=section.norm,
        activation=section.activation,
        dropout=section.dropout,
    )


def warn_of_pooling(section: HeadSection, model: Backbone, folder: Path) -> None:
    """Log the pooling of a new head if a sentence model determined it, unless the model is on the meta device."""
    chosen = isinstance(section, MLPHeadSection) and section.pooling == "auto" and read_pooling(folder)
    if chosen and not any(parameter.is_meta for parameter in model.parameters()):
        log.warning("%s: the new head uses the pooling %r of the sentence model (model.head.pooling)", folder, chosen)
