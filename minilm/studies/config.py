"""A study's file: the runs that answer one question, as frozen dataclasses.

    name = "medical-adaptation"
    question = "Does adapting BERT to the questions' language help?"
    base = "../finetune/bert.toml"      # the config that all runs start from: a file, or a whole config as [base]
    analysis = "compare"                # the analysis that answers the question
    metric = "accuracy"                 # the metric that compares the runs, on the test texts

    [axes]                              # every combination of these values, in this order
    seed = [1, 2, 3]

    [[runs]]                            # each combination is run with each variant
    name = "head"
    changes = ["freeze.part=backbone"]

    [[runs]]
    name = "adapted-head"
    after = "adapt"                     # start from the checkpoint that the variant "adapt" makes
    changes = ["freeze.part=backbone"]

``minilm.studies.plan`` turns a file into runs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

from minilm.config import FolderName, KeepModel, Rate, Size
from minilm.errors import UserError, nearest
from minilm.measures import HIGHER_IS_BETTER
from minilm.schema import Place, shown
from minilm.studies.query_rules import QUERY_RULES


@dataclass(frozen=True)
class Variant:
    """``[[runs]]``: one way to change the base."""

    name: FolderName
    base: str = ""  # a file, instead of the study's base
    without: list[str] = field(default_factory=list)  # sections of the base to remove
    changes: list[str] = field(default_factory=list)  # key=value, as on the command line
    after: str = ""  # an earlier variant, whose adapted checkpoint this one starts from
    axes: Literal["all"] | list[str] = "all"  # the axes that the variant is crossed with


@dataclass(frozen=True)
class ActiveSection:
    """``[active]``: active learning. Runs train in rounds; the model of one round chooses the rows of the next.

        [active]
        rules = ["random", "entropy"]
        labels = [20, 100, 500]           # labelled rows at the end of each round
        noise = [0, 0.2]                  # fraction of the labels that are wrong; each value is run
    """

    rules: list[str]  # which rows are labelled next (``minilm.studies.query_rules``); all start from the same rows
    labels: list[Size]  # labelled rows in each round, increasing; the first ones are drawn at random
    noise: Rate | list[Rate] = 0.0  # fraction of wrong labels; a list runs each value

    @property
    def noise_levels(self) -> list[float]:
        """The fractions of wrong labels, also if the file gives only one."""
        return self.noise if isinstance(self.noise, list) else [self.noise]


@dataclass(frozen=True)
class StudyConfig:
    """A study's file, complete."""

    name: FolderName  # of the study's folder under runs/
    question: str
    base: str | dict[str, Any] = ""  # a file, relative to this file's folder, or a whole config as [base]
    analysis: str = "compare"  # the analysis (``minilm.studies.questions``)
    metric: Literal[tuple(HIGHER_IS_BETTER)] = "accuracy"  # type: ignore[valid-type]
    # What a run saves: the whole model; only the trained parameters, with the name of the base checkpoint; or nothing.
    # Adapters are always saved without their base. In active learning, a model that chooses the next rows is saved.
    keep_model: KeepModel = "trained"
    page: FolderName = "study"  # name of the page's files; use another name to keep an earlier page
    axes: dict[str, list[Any]] = field(default_factory=dict)  # key of a run's config -> its values
    runs: list[Variant] = field(default_factory=list)
    active: ActiveSection | None = None
    texts: list[str] = field(default_factory=list)  # new texts that every model classifies, at the end of the page

    @property
    def figures(self) -> str:
        """Name of the folder with the page's pictures."""
        return figures_of(self.page)

    def axes_of(self, variant: Variant) -> list[str]:
        """The axes that a variant is crossed with, in the file's order."""
        return [key for key in self.axes if variant.axes == "all" or key in variant.axes]


def figures_of(page: str) -> str:
    """Name of the folder with a page's pictures."""
    return "figures" if page == "study" else f"figures-{page}"


def check_axes_and_variants(config: StudyConfig, file: str) -> None:
    """Raise UserError unless every axis has values and every name in a variant exists. ``file``: for messages."""
    for key, values in config.axes.items():
        if not values:
            raise UserError(f"{file}: axes.{key} must contain at least one value")
    earlier: dict[str, Variant] = {}
    for variant in config.runs:
        run = f'{file}: run "{variant.name}"'
        if variant.name in earlier:
            raise UserError(f"{run}: two runs have this name; rename one")
        for key in variant.axes if variant.axes != "all" else ():
            if key not in config.axes:
                raise UserError(f"{run}: {key} is not an axis{nearest(key, config.axes)}")
        if variant.after and variant.after not in earlier:
            hint = nearest(variant.after, earlier)
            raise UserError(f'{run}: after = "{variant.after}" must name a run above this one{hint}')
        if variant.after and set(config.axes_of(earlier[variant.after])) - set(config.axes_of(variant)):
            raise UserError(f'{run}: must have all axes of "{variant.after}", the run that it starts from')
        earlier[variant.name] = variant


def check_active(section: ActiveSection, place: Place) -> None:
    """Raise UserError if a rule is unknown or ``labels`` does not increase. ``place``: where a key was written."""
    known = f"the rules are: {', '.join(QUERY_RULES)}"
    if unknown := next((rule for rule in section.rules if rule not in QUERY_RULES), None):
        hint = nearest(unknown, QUERY_RULES)
        raise UserError(f'{place("active.rules")}: active.rules: unknown rule "{unknown}"{hint}; {known}')
    if not section.rules:
        raise UserError(f"{place('active.rules')}: active.rules must name at least one rule; {known}")
    if len(section.labels) < 2 or any(b <= a for a, b in itertools.pairwise(section.labels)):
        wanted = "at least two numbers that increase from round to round"
        raise UserError(f"{place('active.labels')}: active.labels must be {wanted}, got {shown(section.labels)}")
    if not section.noise_levels:
        raise UserError(f"{place('active.noise')}: active.noise must contain at least one value")
