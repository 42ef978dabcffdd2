"""ModernBERT: its published size, which layers see how far, both spellings of its config, what its two heads share."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from minilm.checkpoints.configs import read_config, write_config
from minilm.checkpoints.files import read_tensors
from minilm.checkpoints.models import load_model, new_model
from minilm.checkpoints.opening import load_model as open_any
from minilm.errors import UserError
from minilm.models import build_model, without_weights
from minilm.models.batch import Batch
from minilm.models.heads import HeadConfig
from minilm.models.modernbert import ModernBertConfig
from tests.families import small_model

REFERENCE = Path(__file__).parents[1] / "reference"
# As the Hub has them, from memory: what their config.json says beside the published class's defaults.
LARGE: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 2624, "num_hidden_layers": 28, "num_attention_heads": 16,
}  # fmt: skip
MMBERT: dict[str, Any] = {"vocab_size": 256000, "local_rope_theta": 160000, "pad_token_id": 0}
MMBERT_SMALL = MMBERT | {"hidden_size": 384, "num_attention_heads": 6}
PUBLISHED = {"ModernBERT-base": {}, "ModernBERT-large": LARGE, "mmBERT-base": MMBERT, "mmBERT-small": MMBERT_SMALL}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ModernBERT-base", 149_655_232),
        ("ModernBERT-large", 395_881_664),
        ("mmBERT-base", 307_786_240),
        ("mmBERT-small", 140_897_536),
    ],
)
def test_a_published_checkpoint_has_the_number_of_parameters_that_it_has_there(name: str, parameters: int) -> None:
    config = read_config({"model_type": "modernbert", **PUBLISHED[name]})
    with without_weights():
        model = build_model("modernbert", config, "lm")
    assert count(model) == parameters
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        theirs = transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**PUBLISHED[name]))
    theirs.tie_weights()
    assert count(theirs) == parameters


def reached(model: Any, layer: int, position: int, length: int = 12) -> list[int]:
    """The positions whose vectors change one layer later if this one's changes."""
    torch.manual_seed(0)
    batch = Batch(torch.randint(4, 50, (1, length)))
    state = model.embed(batch)
    before = model.run(state, batch, layer, layer + 1).x.clone()
    state.x[0, position] += torch.randn(state.x.shape[-1])
    after = model.run(state, batch, layer, layer + 1).x
    return (before != after).any(-1)[0].nonzero().flatten().tolist()


@torch.no_grad()
def test_a_local_layer_sees_half_the_window_to_each_side_and_a_global_one_everything() -> None:
    model = small_model("modernbert", "encode", depth=4, window=5)
    assert model.config.global_layers == (0, 3)
    for layer in (0, 3):
        assert reached(model, layer, 6) == list(range(12))
    for layer in (1, 2):
        assert reached(model, layer, 6) == [4, 5, 6, 7, 8]
        assert reached(model, layer, 0) == [0, 1, 2]


@torch.no_grad()
def test_what_lies_in_padding_far_from_the_text_is_a_number() -> None:
    model = small_model("modernbert", "encode", depth=3, window=2)
    ids, mask = torch.randint(4, 50, (2, 12)), torch.arange(12) < torch.tensor([[12], [3]])
    assert model(ids, mask).isfinite().all()


def test_its_first_layer_has_no_norm_before_attention_and_matrices_have_no_biases() -> None:
    with without_weights():
        model = build_model("modernbert", ModernBertConfig(), "lm")
    names = [name for name, _ in model.named_parameters()]
    assert "layers.0.attention_norm.weight" not in names and "layers.1.attention_norm.weight" in names
    assert [name for name in names if name.endswith("bias")] == ["head.output.bias"]


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_both_spellings_give_the_same_config(every: int) -> None:
    old = {"num_hidden_layers": 7, "global_attn_every_n_layers": every}
    old |= {"global_rope_theta": 5e4, "local_rope_theta": 90.0}
    kinds = ["sliding_attention" if i % every else "full_attention" for i in range(7)]
    tables = {"full_attention": {"rope_type": "default", "rope_theta": 5e4}, "sliding_attention": {"rope_theta": 90.0}}
    new = {"num_hidden_layers": 7, "layer_types": kinds, "rope_parameters": tables}
    configs = [read_config({"model_type": "modernbert", **spelling}) for spelling in (old, new)]
    assert configs[0] == configs[1]
    written = write_config("modernbert", configs[0])
    assert written["global_attn_every_n_layers"] == every and written["layer_types"] == kinds
    assert written["global_rope_theta"] == 5e4 and written["rope_parameters"]["sliding_attention"]["rope_theta"] == 90.0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layer_types": ["full_attention"]}, "layer_types must name 22 layers"),
        ({"layer_types": ["chunked_attention"] * 22}, "layer_types"),
        ({"classifier_pooling": "max"}, 'classifier_pooling) must be "cls" or "mean", got \'max\''),
        ({"hidden_activation": "glu"}, 'activation "glu"'),
        ({"classifier_activation": "glu"}, 'activation "glu"'),
        ({"num_attention_heads": 5}, "must be a multiple of heads"),
        ({"num_attention_heads": 0}, "num_attention_heads must be above 0"),
        ({"global_attn_every_n_layers": 0}, "a setting has the wrong type"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope_parameters must contain a table for"),
        ({"hidden_size": 36}, "3 numbers do not form pairs"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "longrope"),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear"}}}, "need factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2}, "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_a_setting_that_is_not_supported_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as raised:
        read_config({"model_type": "modernbert", **change})
    assert named in str(raised.value)


@pytest.mark.parametrize(
    ("case", "task", "other"),
    [
        ("modernbert-lm", "classify", "ForSequenceClassification"),
        ("modernbert-classify", "lm", "ForMaskedLM"),
    ],
)
def test_a_new_head_keeps_what_both_heads_have_as_the_reference_does(
    case: str, task: str, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    transformers = pytest.importorskip("transformers")
    held = read_tensors(REFERENCE / case / "model.safetensors")
    theirs = getattr(transformers, f"ModernBert{other}").from_pretrained(REFERENCE / case)
    with caplog.at_level(logging.WARNING, logger="minilm"):
        ours = load_model(REFERENCE / case, task, labels=["a", "b"] if task == "classify" else None)
    for part in ("dense", "norm"):
        kept, there = ours.get_parameter(f"head.{part}.weight"), theirs.head.get_parameter(f"{part}.weight")
        assert torch.equal(kept, held[f"head.{part}.weight"]) and torch.equal(kept, there)
    assert f"its head.output for this task ({task}) starts untrained" in caplog.text


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
def test_pefts_adapter_of_a_new_classifier_opens_on_the_language_model_that_it_began_with(tmp_path: Path) -> None:
    """PEFT stores the classifier's last layer alone: what comes before it is the language model's."""
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    kind, base = transformers.ModernBertForSequenceClassification, REFERENCE / "modernbert-lm"
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["Wqkv"], init_lora_weights=False)
    theirs = peft.get_peft_model(kind.from_pretrained(base, num_labels=3), config).eval()
    theirs.create_or_update_model_card = lambda folder: None
    theirs.save_pretrained(tmp_path)
    ids = torch.randint(4, 60, (2, 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(open_any(tmp_path)(ids), theirs(input_ids=ids).logits, rtol=1e-5, atol=1e-5)


def test_our_own_head_keeps_nothing_of_theirs(caplog: pytest.LogCaptureFixture) -> None:
    head = HeadConfig(pooling="mean", hidden=24, norm=True)
    with caplog.at_level(logging.WARNING, logger="minilm"):
        ours = load_model(REFERENCE / "modernbert-lm", "classify", labels=["a", "b"], head=head)
    held = read_tensors(REFERENCE / "modernbert-lm" / "model.safetensors")["head.dense.weight"]
    assert not torch.equal(ours.get_parameter("head.dense.weight"), held)
    assert "its head for this task (classify) starts untrained" in caplog.text


def test_initial_weights_are_cut_off_and_smaller_where_they_add_to_the_path() -> None:
    torch.manual_seed(1)
    config = ModernBertConfig(vocab_size=500, width=64, heads=4, depth=8, mlp_width=96)
    model = new_model("modernbert", config, "classify", labels=["a", "b"])
    deviation = {name: float(p.detach().std()) for name, p in model.named_parameters() if p.dim() == 2}
    for name, std in deviation.items():
        adds = name.endswith(("attention.output.weight", "mlp.down.weight", "head.dense.weight"))
        wanted = 0.02 / 4 if adds else 0.02
        wanted = 64**-0.5 if name == "head.output.weight" else wanted
        assert 0.7 * wanted < std < wanted, name  # cutting off at two deviations takes 12%


@pytest.mark.parametrize("kind", ["ForSequenceClassification", "ForMaskedLM"])
@pytest.mark.usefixtures("torch_dropout")
def test_training_draws_the_same_dropout_as_transformers(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ModernBertConfig(
        vocab_size=50, hidden_size=12, num_hidden_layers=3, num_attention_heads=3, intermediate_size=20,
        embedding_dropout=0.3, attention_dropout=0.2, mlp_dropout=0.1, classifier_dropout=0.4, pad_token_id=0,
    )  # fmt: skip
    theirs = getattr(transformers, f"ModernBert{kind}")(config).train()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path).train()
    ours.head.query_position = lambda batch: None  # the last layer computes all positions, as theirs does
    ids, mask = torch.randint(5, 50, (2, 9)), torch.arange(9) < torch.tensor([[9], [6]])
    torch.manual_seed(2)
    y = theirs(input_ids=ids, attention_mask=mask.long()).logits
    torch.manual_seed(2)
    z = ours(ids, mask)
    real = mask if y.dim() == 3 else torch.ones(2, dtype=torch.bool)
    torch.testing.assert_close(z[real], y[real], atol=1e-5, rtol=1e-5)
