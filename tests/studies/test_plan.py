import re
from dataclasses import replace
from pathlib import Path

import pytest

from minilm.config import FamilyHeadSection, MLPHeadSection
from minilm.errors import UserError
from minilm.studies.plan import DEFAULT_THREADS, Study, dump_study, load_study
from tests.studies.made_up import finished

BASE = """
name = "base"
[model]
source = "bert"
[data]
source = "texts.tsv"
[train]
epochs = 3
lr = 1e-4
"""
STUDY = 'name = "heads"\nquestion = "Which?"\nbase = "base.toml"\n'
ACTIVE = '[active]\nrules = ["random"]\nlabels = [2, 4]\n'
VARIANTS = """
[[runs]]
name = "adapt"
without = ["train"]
changes = ["adapt.train.epochs=2", "adapt.train.lr=1e-5"]
axes = ["seed"]
[[runs]]
name = "head"
after = "adapt"
changes = ["freeze.part=backbone", "train.epochs=5"]
"""


def study(folder: Path, text: str, *changes: str, base: str = BASE) -> Study:
    (folder / "base.toml").write_text(base)
    (folder / "study.toml").write_text(STUDY + text)
    return load_study(folder / "study.toml", changes, runs=Path("runs"))


def names(planned: Study) -> list[str]:
    return [run.name for run in planned.runs]


def test_every_variant_is_crossed_with_every_axis_in_order(tmp_path):
    text = '[axes]\nseed = [1, 2]\n"train.lr" = [1e-5, 0.5]\n[[runs]]\nname = "a"\n[[runs]]\nname = "b"\n'
    planned = study(tmp_path, text + 'changes = ["train.epochs=9"]')
    assert names(planned)[:4] == ["a_seed-1_lr-1e-05", "a_seed-1_lr-0.5", "a_seed-2_lr-1e-05", "a_seed-2_lr-0.5"]
    last = planned.runs[-1].config
    assert (last.seed, last.train.lr, last.train.epochs, last.name) == (2, 0.5, 9, "b_seed-2_lr-0.5")
    assert planned.runs[-1].group == "b, lr 0.5"
    assert planned.folder == Path("runs/heads")


def test_without_axes_or_variants_there_is_still_a_run(tmp_path):
    assert names(study(tmp_path, "")) == ["all"]
    assert names(study(tmp_path, "[axes]\nseed = [1, 2]")) == ["seed-1", "seed-2"]


def test_names_are_safe_short_and_never_the_same(tmp_path):
    axes = (
        '[axes]\n"data.source" = ["a/b.tsv", "a b.tsv"]\n"train.lr" = [0.1]\n"train.clip" = [0]\ndata.text = ["x", "y"]'
    )
    found = names(study(tmp_path, axes))
    assert (
        len(set(found)) == 4 and found[0].startswith("source-a-b.tsv-") and found[0].endswith("_lr-0.1_clip-0_text-x")
    )
    same = '[axes]\n"train.lr" = [0.1]\n"adapt.train.lr" = [0.2]\n"adapt.train.epochs" = [1]'
    assert names(study(tmp_path, same)) == ["train.lr-0.1_adapt.train.lr-0.2_epochs-1"]


def test_names_of_many_long_values_are_cut_and_stay_apart(tmp_path):
    values = ", ".join(f'"a folder whose name is long/and a file number {i} in it.csv"' for i in range(2))
    axes = f'[axes]\nseed = [1, 2]\n"data.source" = [{values}]\n"data.text" = [{values}]\n'
    for text in (axes, ACTIVE + axes):
        found = names(study(tmp_path, text))
        assert len(set(found)) == len(found) >= 8 and all(len(name) <= 100 for name in found)


def test_a_run_after_another_starts_from_what_that_one_adapted(tmp_path):
    planned = study(tmp_path, '[axes]\nseed = [1, 2]\n"train.lr" = [0.1, 0.2]\n' + VARIANTS)
    assert names(planned)[:3] == ["adapt_seed-1", "adapt_seed-2", "head_seed-1_lr-0.1"]
    adapt, head = planned.runs[1], planned.runs[-1]
    assert adapt.config.train is None and adapt.config.adapt.train.epochs == 2
    # Whole, so that the study can be gone on with from another folder.
    assert (head.after, head.config.model.source) == (
        "adapt_seed-2",
        str(Path("runs/heads/adapt_seed-2/adapted").resolve()),
    )
    assert head.config.adapt is None and head.config.freeze.part == "backbone"


def test_the_command_line_changes_every_run_and_the_study_itself(tmp_path):
    changes = ("train.epochs=1", "adapt.train.epochs=7", "axes.seed=[5]", "metric=macro_f1", "data.max_tokens=9")
    planned = study(tmp_path, "[axes]\nseed = [1, 2]\n" + VARIANTS, *changes)
    assert names(planned) == ["adapt_seed-5", "head_seed-5"] and planned.config.metric == "macro_f1"
    adapt, head = (run.config for run in planned.runs)
    assert adapt.train is None and (adapt.adapt.train.epochs, head.train.epochs) == (7, 1)
    assert adapt.data.max_tokens == head.data.max_tokens == 9
    lr = study(tmp_path, '[axes]\n"train.lr" = [0.1]', "axes.train.lr=[0.2, 0.3]", "axes.seed=[4]")
    assert names(lr) == ["lr-0.2_seed-4", "lr-0.3_seed-4"]


def test_the_threads_of_a_run_are_a_setting(tmp_path):
    planned = study(tmp_path, "[axes]\nseed = [1]\n" + VARIANTS)
    sections = [run.config.train or run.config.adapt.train for run in planned.runs]
    assert [section.threads for section in sections] == [DEFAULT_THREADS] * 2
    assert DEFAULT_THREADS == 1  # so that results do not depend on the machine
    assert study(tmp_path, "", "train.threads=3").runs[0].config.train.threads == 3


def test_zero_shot_runs_have_their_threads_too(tmp_path):
    base = BASE.partition("[train]")[0] + '[zero_shot]\nmethod = "similarity"\n'
    assert study(tmp_path, "", base=base).runs[0].config.zero_shot.threads == DEFAULT_THREADS
    assert study(tmp_path, "", "zero_shot.threads=5", base=base).runs[0].config.zero_shot.threads == 5


def test_names_of_rounds_hold_all_numbers_so_far_as_long_as_they_are_short(tmp_path):
    labels = list(range(1001, 1013))  # twelve numbers of four digits and eleven dashes: 59 characters
    runs = study(tmp_path, f'[active]\nrules = ["random"]\nlabels = {labels}\n').runs
    assert runs[-1].name == "all_random_labels-" + "-".join(map(str, labels))
    more = [1000, *labels]
    last = study(tmp_path, f'[active]\nrules = ["random"]\nlabels = {more}\n').runs[-1]
    assert re.fullmatch(r"all_random_labels-1012-[0-9a-f]{6}", last.name)


def test_a_base_may_stand_in_the_study_and_be_another_for_a_variant(tmp_path):
    inside = STUDY.replace('base = "base.toml"\n', "") + "[base]\n" + BASE.replace("[", "[base.")
    (tmp_path / "other.toml").write_text(BASE.replace("bert", "albert"))
    (tmp_path / "study.toml").write_text(inside + '[[runs]]\nname = "a"\n[[runs]]\nname = "b"\nbase = "other.toml"')
    planned = load_study(tmp_path / "study.toml")
    assert [run.config.model.source for run in planned.runs] == ["bert", "albert"]


def test_the_file_that_a_study_leaves_can_be_run_from_its_place(tmp_path):
    other = VARIANTS + '[[runs]]\nname = "other"\nbase = "base.toml"\nchanges = ["train.epochs=7"]\n'
    planned = study(tmp_path, '[axes]\n"train.lr" = [0.1, 0.2]\nseed = [1]\n' + other)
    left = tmp_path / "runs" / "heads" / "study.toml"
    left.parent.mkdir(parents=True)
    left.write_text(dump_study(planned))
    again = load_study(left, runs=Path("runs"))
    assert (again.runs, again.folder) == (planned.runs, planned.folder)
    left.write_text(dump_study(again))
    assert load_study(left, runs=Path("runs")).config == again.config
    assert "# with seed=3 data.max_tokens=9" in dump_study(study(tmp_path, "", "seed=3", "data.max_tokens=9"))


def test_variants_may_meet_in_a_point_where_they_vary_different_settings(tmp_path):
    text = '[axes]\n"train.lr" = [1e-4, 2e-4]\n"train.epochs" = [3, 4]\n'
    text += '[[runs]]\nname = "rates"\naxes = ["train.lr"]\n[[runs]]\nname = "lengths"\naxes = ["train.epochs"]\n'
    rates, _, lengths, _ = study(tmp_path, text).runs
    assert replace(rates.config, name="") == replace(lengths.config, name="")


def test_with_active_what_trains_becomes_rounds_and_what_adapts_stays(tmp_path):
    text = ACTIVE + "noise = [0, 0.5]\n[axes]\nseed = [1]\n" + VARIANTS
    planned = study(tmp_path, text, "active.labels=[3, 6, 9]", "axes.seed=[2]", "data.redraw=true")
    adapt, start, second, third, noisy, *_ = planned.runs
    assert (adapt.round, adapt.name) == (None, "adapt_seed-2") and len(planned.runs) == 7
    assert (start.after, start.point) == (adapt.name, {"seed": 2, "rule": "start", "labels": 3})
    assert (second.name, third.after) == ("head_seed-2_random_labels-3-6", "head_seed-2_random_labels-3-6")
    assert third.config.data.rows == str(Path("runs/heads/configs/head_seed-2_random_labels-3-6-9.rows.txt").resolve())
    assert third.config.name == third.name and third.config.data.split_seed == 2
    assert (start.round.noise, noisy.round.noise, start.round.final_labels) == (0, 0.5, 9)
    assert noisy.name == "head_seed-2_start_labels-3_noise-0.5" and planned.axes == ["seed", "rule", "labels", "noise"]
    (tmp_path / "again.toml").write_text(dump_study(planned))
    assert load_study(tmp_path / "again.toml", ("data.redraw=true",), runs=Path("runs")).runs == planned.runs


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        ("metrics = 1", [], r'study\.toml: metrics is not a known key \(did you mean "metric"'),
        ("[axes]\nsed = [1]", [], r"study\.toml: axes\.sed: sed is not a known key"),
        ("[axes]\nseed = 1", [], r"study\.toml: axes\.seed must be a list"),
        ("[axes]\nseed = []", [], r"axes\.seed must contain at least one value"),
        ("[axes]\nseed = [1, 1]", [], r'the runs "seed-1" and "seed-1" have the same settings'),
        ('[axes]\n"train.lr" = ["fast"]', [], r"study\.toml: axes\.train\.lr: train\.lr must be a number above 0"),
        ('metric = "acuracy"', [], r'metric must be .* \(did you mean "accuracy"'),
        ('[[runs]]\nname = "a"\n[[runs]]\nname = "a"', [], r'run "a": two runs have this name'),
        ('[[runs]]\nname = "a"\n[[runs]]\nname = "b"', [], r'the runs "a" and "b" have the same settings'),
        (
            '[[runs]]\nname = "a"\nchanges = ["freeze.part=head"]',
            [],
            r'run "a": freeze\.part=head: freeze\.part must be',
        ),
        ('[[runs]]\nname = "a"\nchanges = ["freeze"]', [], r'run "a": "freeze": write section.key=value'),
        ('[[runs]]\nname = "a"\nafter = "b"', [], r'run "a": after = "b" must name a run above this one'),
        ('[[runs]]\nname = "a"\nwithout = ["trai"]', [], r'no section \[trai\] \(did you mean "train"'),
        ('[[runs]]\nname = "a"\naxes = ["sed"]', [], r'run "a": sed is not an axis'),
        ('[[runs]]\nname = "logs"', [], r'a run cannot be named "logs"'),
        ('[[runs]]\nname = "figures-x"', [], r'a run cannot be named "figures-x"'),
        ("", ["page=a/b"], r"^page=a/b: page must be a name of at most 100 letters"),
        ('[[runs]]\nnam = "a"', [], r"runs\[1\]\.nam is not a known key"),
        ("[axes]\nseed = [1]", ["seed=2"], r"seed=2: seed is an axis of this study; change it with axes\.seed"),
        ('[axes]\n"train.lr" = [0.1]', ["train={ epochs=1, lr=0.2 }"], r"train\.lr is an axis of this study"),
        ("", ["train.epoch=2"], r"^train\.epoch=2: train\.epoch is not a known key"),
        ("", ["adapt.train.lr=2"], r"^adapt\.train\.lr=2: no run of this study has a section \[adapt\]"),
        ("", ["metric=f"], r"^metric=f: metric must be"),
        ("", ["train.by_length=false"], r"^train\.by_length=false: .* rename it to train\.group_by_length"),
        (
            '[[runs]]\nname = "a"\nchanges = ["train.threshold=0.1"]',
            [],
            r'run "a": train\.threshold=0\.1: train\.threshold is an old name; rename it to train\.min_delta',
        ),
        ('[axes]\n"train.decision" = [0.1]', [], r"axes\.train\.decision: .* train\.decision_threshold"),
        ("", ["base="], r"base is missing"),
        ("", ["base=none.toml"], r"none\.toml: no such file"),
        ("[active]\nlabels = [2, 4]", [], r"study\.toml: active\.rules is missing; it must be a list"),
        (
            ACTIVE,
            ['active.rules=["entropi"]'],
            r'^active\.rules=.*unknown rule "entropi" \(did you mean "entropy"\?\); the rules',
        ),
        (ACTIVE, ["active.rules=[]"], r"active\.rules must name at least one rule; the rules are: random, "),
        (
            ACTIVE,
            ["active.labels=[20, 20]"],
            r"^active\.labels=.* must be at least two numbers that increase .*, got \[20, 20\]",
        ),
        (ACTIVE, ["active.labels=[20]"], r"active\.labels must be at least two numbers"),
        (ACTIVE, ["active.labels=[0, 1]"], r"active\.labels must be a list, each item a whole number of at least 1"),
        (
            ACTIVE,
            ["active.noise=1"],
            r"^active\.noise=1: active\.noise must be a number of at least 0 and below 1 or a list",
        ),
        (ACTIVE, ["active.noise=[]"], r"active\.noise must contain at least one value"),
        (ACTIVE, ["active.noise=[0.1, 0.1]"], r'"all_start_labels-2_noise-0\.1" and .* have the same settings'),
        (ACTIVE, ["data.shots=3"], r"remove data\.rows and data\.shots, as \[active\] chooses the rows"),
        (
            ACTIVE + '[[runs]]\nname = "a"\n[[runs]]\nname = "b"\nafter = "a"',
            [],
            r'run "b": after: .* without \[train\]',
        ),
        (
            ACTIVE + '[[runs]]\nname = "a"\nwithout = ["train"]\nchanges = ["adapt.train={ epochs=1, lr=1 }"]',
            [],
            r"needs runs with",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, text, changes, said):
    text = text if text.startswith("[") or "=" not in text else text + "\n"
    with pytest.raises(UserError, match=said) as error:
        study(tmp_path, text, *changes)
    assert "\n" not in str(error.value)


HEADS = '[[runs]]\nname = "family"\nchanges = ["model.head.kind=family"]\n'


def test_a_change_of_our_head_is_for_the_runs_that_have_it(tmp_path):
    both = study(tmp_path, f'{HEADS}[[runs]]\nname = "mlp"\n', "model.head.dropout=0.3")
    assert [run.config.model.head for run in both.runs] == [FamilyHeadSection(), MLPHeadSection(dropout=0.3)]
    with pytest.raises(UserError, match=r"^model\.head\.dropout=0\.3: no run .* uses it: model\.head\.dropout bel"):
        study(tmp_path, HEADS, "model.head.dropout=0.3")
    with pytest.raises(UserError, match=r'run "family": model\.head\.norm=true: model\.head\.norm belongs'):
        study(tmp_path, HEADS.replace('family"]', 'family", "model.head.norm=true"]'))


def test_a_variant_has_all_axes_of_the_one_it_goes_on_from(tmp_path):
    text = '[axes]\nseed = [1]\n[[runs]]\nname = "a"\nwithout = []\n[[runs]]\nname = "b"\nafter = "a"\naxes = []'
    with pytest.raises(UserError, match='run "b": must have all axes of "a"'):
        study(tmp_path, text)


def test_a_run_is_named_after_its_values_as_they_are_typed():
    run = finished("head", {"data.redraw": True, "train.lr": 1e-5, "train.schedule": "linear", "seed": 1}, 0.8)
    assert run.planned.group == run.name_without() == "head, redraw true, lr 1e-05, schedule linear"
    assert run.name_without("train.lr", "train.schedule") == "head, redraw true"


def test_a_number_of_epochs_that_is_set_last_has_no_least_number_of_steps(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        'name = "s"\nquestion = "?"\n[[runs]]\nname = "a"\nchanges = ["train.epochs=2", "train.min_steps=100"]\n'
        '[base.model]\nsource = "bert"\n[base.data]\nsource = "x.csv"\n[base.train]\nepochs = 1\nlr = 1e-3\n'
    )

    def settings(*changes: str) -> tuple[int, int]:
        [run] = load_study(path, changes, runs=tmp_path).runs
        assert run.config.train is not None
        return run.config.train.epochs, run.config.train.min_steps

    assert settings() == (2, 100) and settings("train.min_steps=7") == (2, 7)
    assert settings("train.epochs=3") == (3, 0)  # the run has set it too, but earlier
