"""The questions that a study can ask (``analysis`` in its file), a module each."""

from minilm.studies.questions.active import active
from minilm.studies.questions.augmentation import augmentation
from minilm.studies.questions.few_shot import few_shot
from minilm.studies.questions.freezing import freezing
from minilm.studies.questions.scaling import scaling
from minilm.studies.questions.seeds import seeds
from minilm.studies.questions.sweep import sweep
from minilm.studies.questions.zero_shot import zero_shot

QUESTIONS = {
    "active": active,
    "augmentation": augmentation,
    "few-shot": few_shot,
    "freezing": freezing,
    "scaling": scaling,
    "seeds": seeds,
    "sweep": sweep,
    "zero-shot": zero_shot,
}
