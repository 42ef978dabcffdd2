"""The questions of studies, one module each; ``analysis`` in a study's file chooses one.

To add a question, write a module with a ``StudyQuestion`` and register it here.
"""

from minilm.studies.question import StudyQuestion
from minilm.studies.questions.active import ACTIVE
from minilm.studies.questions.augmentation import AUGMENTATION
from minilm.studies.questions.compare import COMPARE
from minilm.studies.questions.few_shot import FEW_SHOT
from minilm.studies.questions.folds import FOLDS
from minilm.studies.questions.freezing import FREEZING
from minilm.studies.questions.scaling import SCALING
from minilm.studies.questions.seeds import SEEDS
from minilm.studies.questions.sweep import SWEEP
from minilm.studies.questions.zero_shot import ZERO_SHOT

_ALL = (COMPARE, ACTIVE, AUGMENTATION, FEW_SHOT, FOLDS, FREEZING, SCALING, SEEDS, SWEEP, ZERO_SHOT)
QUESTIONS: dict[str, StudyQuestion] = {question.name: question for question in _ALL}
