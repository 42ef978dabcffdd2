"""Checks of a study before its first run."""

from __future__ import annotations

from minilm.errors import UserError, located, nearest
from minilm.evaluation.metrics import check_metric
from minilm.runs.trackers.processes import check_trackers
from minilm.studies.plan import Study
from minilm.studies.question import StudyQuestion
from minilm.studies.questions import QUESTIONS


def question_of(study: Study) -> StudyQuestion:
    """The question that a study's file names. Raises UserError if there is no such question."""
    name = study.config.analysis
    if name not in QUESTIONS:
        known = ", ".join(QUESTIONS)
        raise UserError(f'{study.path}: unknown analysis "{name}"{nearest(name, QUESTIONS)}; the analyses are: {known}')
    return QUESTIONS[name]


def check_study(study: Study) -> None:
    """Raise UserError if the runs cannot answer the study's question, whatever their results are."""
    question, metric = question_of(study), study.config.metric
    with located(str(study.path)):
        for run in study.runs:
            check_trackers(run.config)
    if not question.fits(study):
        raise UserError(f"{study.path}: the analysis {question.name} needs {question.needs}")
    if study.config.texts and study.config.keep_model == "none":
        raise UserError(f'{study.path}: texts: the models must be kept to classify them; remove keep_model = "none"')
    if not all(text.strip() for text in study.config.texts):
        raise UserError(f"{study.path}: texts: a text is empty; remove it")
    adapts = any(run.config.adapt is not None for run in study.runs)
    if metric == "perplexity" and not (adapts and question.compares_language_models):
        able = " and ".join(name for name, other in QUESTIONS.items() if other.compares_language_models)
        raise UserError(
            f"{study.path}: metric: only runs with a section [adapt] have a perplexity, and only the analyses {able} "
            "compare it; choose another metric, such as metric=accuracy"
        )
    if metric != "perplexity" and not any(run.config.train or run.config.zero_shot for run in study.runs):
        raise UserError(f"{study.path}: its runs only adapt, so no test texts are classified; use metric=perplexity")
    configs = [run.config for run in study.runs if run.config.train or run.config.zero_shot]
    kinds = {config.data.multi_label for config in configs}
    if metric != "perplexity" and len(kinds) == 1:  # with both kinds, the runs that have the metric are compared
        check_metric(metric, kinds.pop(), f"{study.path}: metric")
