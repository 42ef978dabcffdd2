import pytest
import torch
from torch import nn

from minilm.models.gpt2 import GPT2, GPT2Config
from minilm.models.heads import ClassificationHead, HeadConfig
from minilm.reporting.summary import layer_rows, parameter_counts, summarize

STUDY = GPT2Config(
    vocab_size=32_000,
    width=128,
    heads=4,
    depth=8,
    context=256,
    attention_bias=False,
    activation="gelu",
    dropout=0.4,
)
TINY = GPT2Config(vocab_size=10, width=4, heads=2, depth=3, context=8, attention_bias=False)


def classifier(config):
    model = GPT2(config)
    model.head = ClassificationHead(config.width, 3, HeadConfig(hidden=config.width, dropout=0.4))
    return model


def rows_of(model):
    return {row.name: row for row in layer_rows(model)}


def test_the_study_s_scratch_model_has_its_5_728_003_parameters():
    model = classifier(STUDY)
    assert parameter_counts(model) == (5_728_003, 5_728_003)
    rows = rows_of(model)
    assert rows[""].parameters == 5_728_003 and rows[""].shape == (1, 3)
    assert rows["embeddings.token"].parameters == 4_096_000
    assert rows["layers.0.mlp.up"].shape == (1, 16, 512)
    assert rows["layers.7"].parameters == 197_760


def test_the_table_of_a_small_model_reads_like_this():
    model = classifier(TINY)
    model.embeddings.requires_grad_(False)
    model.layers.requires_grad_(False)
    # One text of 16 tokens, or of the model's context (8) if that is shorter.
    assert (
        summarize(model)
        == """\
Layer                 Class               Output      Parameters  Trained
-------------------------------------------------------------------------
GPT2                  GPT2                (1, 3)             799       43
├─ embeddings         GPT2Embeddings      (1, 8, 4)           72     none
│  └─ token           Embedding           (1, 8, 4)           40     none
│  └─ position        Embedding           (8, 4)              32     none
├─ layers.0           GPT2Layer           (1, 8, 4)          228     none
│  └─ attention_norm  LayerNorm           (1, 8, 4)            8     none
│  └─ attention       Attention           (1, 8, 4)           64     none
│  │  └─ query        Linear              (1, 8, 4)           16     none
│  │  └─ key          Linear              (1, 8, 4)           16     none
│  │  └─ value        Linear              (1, 8, 4)           16     none
│  │  └─ output       Linear              (1, 8, 4)           16     none
│  └─ mlp_norm        LayerNorm           (1, 8, 4)            8     none
│  └─ mlp             MLP                 (1, 8, 4)          148     none
│  │  └─ up           Linear              (1, 8, 16)          80     none
│  │  └─ down         Linear              (1, 8, 4)           68     none
├─ layers.1           as layers.0         (1, 8, 4)          228     none
├─ layers.2           as layers.0         (1, 1, 4)          228     none
├─ norm               LayerNorm           (1, 1, 4)            8      all
├─ head               ClassificationHead  (1, 3)              35      all
│  └─ dense           Linear              (1, 4)              20      all
│  └─ output          Linear              (1, 3)              15      all
-------------------------------------------------------------------------
Parameters              799
Trained                  43
Frozen                  756
Size in MiB             0.0"""
    )


def test_layers_unfold_again_where_training_begins():
    model = classifier(TINY)
    model.layers[0].requires_grad_(False)
    rows = rows_of(model)
    assert rows["layers.0"].trained == 0 and rows["layers.0.mlp.up"].trained == 0
    assert rows["layers.1"].kind == "GPT2Layer" and "layers.1.mlp.up" in rows
    assert rows["layers.2"].kind == "as layers.1" and "layers.2.mlp.up" not in rows
    assert rows["layers.2"].trained == rows["layers.2"].parameters > 0


def test_a_tensor_that_two_parts_share_counts_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Embedding(10, 4)
            self.output = nn.Linear(4, 10, bias=False)
            self.output.weight = self.token.weight

        def forward(self, ids):
            return self.output(self.token(ids))

    model = Tied()
    assert parameter_counts(model) == (40, 40)
    rows = rows_of(model)
    assert (rows[""].parameters, rows["token"].parameters, rows["output"].parameters) == (40, 40, 0)
    assert "shared" in next(line for line in summarize(model).splitlines() if "output" in line)


def test_the_model_is_left_as_it_was():
    model = classifier(TINY).train()
    model.layers[0].eval()  # as frozen layers are, while others train
    modes = [module.training for module in model.modules()]
    torch.manual_seed(0)
    random_state = torch.get_rng_state()
    summarize(model)
    assert [module.training for module in model.modules()] == modes
    assert all(not module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_failing_forward_leaves_no_hooks_behind():
    model = classifier(TINY).train()
    del model.head.output  # what the head calls
    with pytest.raises(AttributeError):
        summarize(model)
    assert model.training and all(not module._forward_hooks for module in model.modules())


def test_rows_add_up_to_the_model():
    rows = layer_rows(classifier(TINY))
    assert sum(row.parameters for row in rows if row.depth == 1) == rows[0].parameters


def test_a_model_on_the_meta_device_is_summarised_without_memory():
    with torch.device("meta"):
        model = GPT2(GPT2Config())
    assert rows_of(model)["layers.11"].parameters == 7_087_872


def test_modules_that_are_not_called_or_return_no_tensor_have_no_shape():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Embedding(4, 2), nn.Linear(2, 2)

        def forward(self, ids):
            return {"hidden": (None, self.used(ids))}

    rows = rows_of(Odd())
    assert rows[""].shape == (1, 16, 2) and rows["unused"].shape is None
