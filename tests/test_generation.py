"""Texts are written token for token as ``transformers`` writes them, alone or side by side, and told as they come."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from minilm import generation
from minilm.checkpoints.models import load_model
from minilm.data.tokenization import train_bpe
from minilm.errors import UserError
from minilm.generation import (
    Detokenizer,
    encode_prompt,
    fill,
    generate,
    generate_text,
    stop_tokens,
    stream,
    stream_text,
)
from minilm.models.batch import Cache
from minilm.sampling import Sampling
from tests.tiny import minilm, refused

VOCABULARY = 300
SHARED = {"vocab_size": VOCABULARY, "eos_token_id": None, "bos_token_id": None}
LLAMA = {
    **SHARED, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 40, "max_position_embeddings": 64,
}  # fmt: skip
GEMMA = {
    **LLAMA, "head_dim": 8, "layer_types": ["full_attention", "sliding_attention"], "tie_word_embeddings": False,
}  # fmt: skip
T5 = {
    "vocab_size": VOCABULARY, "d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0, "eos_token_id": None,
}  # fmt: skip
CONFIGS: dict[str, tuple[type, Any]] = {
    "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config(**SHARED, n_embd=24, n_layer=2, n_head=3, n_positions=64)),
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig(**LLAMA, attention_bias=True)),
    "mistral": (hf.MistralForCausalLM, hf.MistralConfig(**LLAMA, sliding_window=5)),
    "qwen2": (hf.Qwen2ForCausalLM, hf.Qwen2Config(**LLAMA, tie_word_embeddings=True)),
    "qwen3": (hf.Qwen3ForCausalLM, hf.Qwen3Config(**LLAMA, head_dim=8)),
    "smollm3": (hf.SmolLM3ForCausalLM, hf.SmolLM3Config(**LLAMA, no_rope_layers=[1, 0], pad_token_id=None)),
    "phi3": (hf.Phi3ForCausalLM, hf.Phi3Config(**LLAMA, sliding_window=5, pad_token_id=None)),
    "gemma": (hf.GemmaForCausalLM, hf.GemmaConfig(**LLAMA, head_dim=8)),
    "gemma2": (hf.Gemma2ForCausalLM, hf.Gemma2Config(**GEMMA, attn_logit_softcapping=2.0, sliding_window=5)),
    "gemma3_text": (hf.Gemma3ForCausalLM, hf.Gemma3TextConfig(**GEMMA, sliding_window=5)),
    "t5": (hf.T5ForConditionalGeneration, hf.T5Config(**T5)),
}
DECODERS = tuple(family for family in CONFIGS if family != "t5")
PROMPTS = [[5, 9, 100, 41, 7, 7, 250], [17], [200, 3, 88, 120]]
VARIED = Sampling(temperature=1.3, top_k=200, top_p=0.95, repetition_penalty=1.2, seed=7)


@cache
def both(family: str) -> tuple[Any, nn.Module]:
    """A random model of theirs, and ours from its file. Tests share them."""
    torch.manual_seed(8)
    kind, config = CONFIGS[family]
    theirs = kind(config).eval()
    with torch.no_grad():
        for name, p in theirs.named_parameters():  # large enough that the texts are not one token for ever
            if p.dim() > 1:
                is_table = any(part in name for part in ("wte", "embed", "shared"))
                p.copy_(torch.randn_like(p) * (4 if is_table else 4 * p.shape[-1] ** -0.5))
    folder = Path(mkdtemp(prefix="minilm-tests-"))
    theirs.save_pretrained(folder)
    return theirs, load_model(folder, "lm", dtype=torch.float32)


def ours(family: str) -> nn.Module:
    return both(family)[1]


def padded(prompts: list[list[int]], left: bool) -> tuple[Tensor, Tensor]:
    """Ids and attention mask as ``transformers`` wants them: on the left for decoders."""
    longest = max(map(len, prompts))
    spare = [[0] * (longest - len(prompt)) for prompt in prompts]
    ids = [s + p if left else p + s for p, s in zip(prompts, spare, strict=True)]
    mask = [s + [1] * len(p) if left else [1] * len(p) + s for p, s in zip(prompts, spare, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)


def their_greedy(family: str, prompts: list[list[int]], new: int, **settings: Any) -> list[list[int]]:
    ids, mask = padded(prompts, left=family in DECODERS)
    theirs = both(family)[0]
    output = theirs.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=new, pad_token_id=0, eos_token_id=None, **settings
    )
    return output[:, -new:].tolist()


# --- Against the published implementation ------------------------------------------------------------------------


@pytest.mark.parametrize("family", CONFIGS)
def test_a_batch_of_prompts_goes_on_as_in_transformers(family: str) -> None:
    wanted = their_greedy(family, PROMPTS, 12)
    assert generate(ours(family), PROMPTS, 12) == wanted
    assert any(len(set(text)) > 3 for text in wanted)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_repetition_is_penalised_as_in_transformers(family: str) -> None:
    wanted = [their_greedy(family, [prompt], 12, repetition_penalty=1.7)[0] for prompt in PROMPTS]
    assert generate(ours(family), PROMPTS, 12, Sampling(repetition_penalty=1.7)) == wanted
    assert wanted != their_greedy(family, PROMPTS, 12)


# --- Drawing -----------------------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_and_another_seed_does_not() -> None:
    first, again = (generate(ours("gpt2"), PROMPTS, 12, VARIED) for _ in range(2))
    assert first == again
    assert generate(ours("gpt2"), PROMPTS, 12, Sampling(1.3, seed=8)) != first
    unseeded = Sampling(temperature=50.0)
    assert generate(ours("gpt2"), PROMPTS, 12, unseeded) != generate(ours("gpt2"), PROMPTS, 12, unseeded)


def test_equal_prompts_of_a_batch_are_drawn_independently() -> None:
    first, second = generate(ours("gpt2"), [[5, 6], [5, 6]], 12, Sampling(50.0, seed=1))
    assert first != second


@pytest.mark.parametrize("family", ["gpt2", "mistral", "gemma2", "t5"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_text_does_not_depend_on_what_else_is_in_the_batch(family: str, temperature: float) -> None:
    def how(seed: int) -> Sampling:
        return Sampling(temperature, repetition_penalty=1.3, seed=seed)

    free = generate(ours(family), PROMPTS, 20, how(5))
    stop = {free[1][3], free[0][9]}  # so that the texts end one after another
    together = generate(ours(family), PROMPTS, 20, how(5), stop)
    alone = [generate(ours(family), [prompt], 20, how(5 + i), stop)[0] for i, prompt in enumerate(PROMPTS)]
    assert together == alone
    assert len(together[1]) <= 3


# --- The cache ---------------------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(
    prompts=st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=4),
    family=st.sampled_from(list(CONFIGS)),
)
def test_a_cache_changes_nothing(prompts: list[list[int]], family: str) -> None:
    model, new = ours(family), 6
    wanted = []
    for prompt in prompts:
        text = [0] if family == "t5" else list(prompt)
        with torch.no_grad():
            for _ in range(new):
                written = {"decoder_ids": torch.tensor([text])} if family == "t5" else {}
                read = prompt if family == "t5" else text
                text.append(int(model(torch.tensor([read]), **written)[0, -1].argmax()))
        wanted.append(text[-new:])
    assert generate(model, prompts, new) == wanted


def test_each_token_is_computed_once_and_the_head_sees_the_last_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model, made, shapes = ours("gpt2"), [], {"layer": [], "head": []}
    monkeypatch.setattr(generation, "Cache", lambda *given: made.append(Cache(*given)) or made[-1])
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: shapes[name].append(tuple(inputs[0].shape)))
        for name, module in (("layer", model.layers[0]), ("head", model.head))
    ]
    stop = generate(model, PROMPTS, 3)[1][1]  # at which the second text ends early
    shapes["layer"].clear(), shapes["head"].clear()
    texts = generate(model, PROMPTS, 5, stop=[stop])
    for hook in hooks:
        hook.remove()
    rows = [sum(len(text) + (text != texts[0]) > step for text in texts) for step in range(5)]
    assert min(map(len, texts)) < max(map(len, texts)) == 5
    assert [shape[:2] for shape in shapes["layer"]] == [(3, 7), *((n, 1) for n in rows[1:])]
    assert {shape[1] for shape in shapes["head"]} == {1}
    assert made[-1].layers[0].key.shape[2] == 7 + 5


def test_t5_reads_the_prompt_once() -> None:
    model, calls = ours("t5"), []
    watched = (model.encoder.layers[0], model.decoder.layers[1].cross_attention.key)
    hooks = [module.register_forward_hook(lambda module, *_: calls.append(module)) for module in watched]
    generate(model, PROMPTS, 5)
    for hook in hooks:
        hook.remove()
    assert len(calls) == 2


def test_a_model_in_training_writes_without_dropout_and_stays_in_training() -> None:
    model = ours("gpt2")
    wanted = generate(model, PROMPTS, 5)
    model.train()
    try:
        assert generate(model, PROMPTS, 5) == wanted
        assert model.training and model.layers[0].dropout.training
    finally:
        model.eval()


# --- The end of a text -------------------------------------------------------------------------------------------


def test_frozen_parts_of_a_model_in_training_stay_in_evaluation_mode() -> None:
    model = ours("gpt2").train()
    model.embeddings.eval()
    try:
        generate(model, PROMPTS, 2)
        assert model.training and not model.embeddings.dropout.training
    finally:
        model.eval()


def test_a_text_ends_before_its_stop_token_and_the_others_go_on() -> None:
    model = ours("llama")
    free = generate(model, PROMPTS, 10)
    stop = free[0][4]
    expected = [text[: text.index(stop)] if stop in text else text for text in free]
    assert generate(model, PROMPTS, 10, stop=[stop]) == expected
    assert 0 < len(expected[0]) < 10 and max(map(len, expected)) == 10
    assert generate(model, PROMPTS[:1], 10, stop=[free[0][0]]) == [[]]


def test_tokens_come_one_step_at_a_time() -> None:
    model = ours("gpt2")
    tokens = stream(model, PROMPTS, 4)
    assert [next(tokens)[0] for _ in range(3)] == [0, 1, 2]
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()  # between steps nothing is changed
    whole = generate(model, PROMPTS, 4)
    assert [token for text, token in tokens if text == 1] == whole[1][1:]


def test_a_text_ends_with_the_context() -> None:
    model = ours("gpt2")
    long = [7] * 60
    texts = generate(model, [long, [9]], 100)
    assert [len(text) for text in texts] == [4, 63]
    assert texts[0] == generate(model, [long], 3)[0] + texts[0][3:]
    assert texts[0] == their_greedy("gpt2", [long], 4)[0]


def test_positions_stretched_linearly_reach_further_than_the_context() -> None:
    config = hf.LlamaConfig(**{**LLAMA, "max_position_embeddings": 8}, rope_scaling={"type": "linear", "factor": 2.0})
    folder = Path(mkdtemp(prefix="minilm-tests-"))
    hf.LlamaForCausalLM(config).save_pretrained(folder)
    assert len(generate(load_model(folder), [[5] * 10], 99)[0]) == 6


def test_no_prompts_make_no_texts() -> None:
    assert generate(ours("gpt2"), [], 5) == []


@pytest.mark.parametrize(
    ("family", "prompts", "new", "message"),
    [
        ("gpt2", [[1], []], 5, "prompt 2 has no tokens"),
        ("gpt2", [[1] * 64], 5, "prompt 1 has 64 tokens, which leaves no room"),
        ("llama", [[1, VOCABULARY]], 5, "token 300 is not in the model's vocabulary of 300"),
        ("t5", [[1]], 0, "max_new_tokens must be at least 1"),
    ],
)
def test_what_cannot_be_gone_on_from_is_said_at_once(
    family: str, prompts: list[list[int]], new: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        stream(ours(family), prompts, new)


# --- Text --------------------------------------------------------------------------------------------------------

TEXTS = [
    "zażółć gęślą jaźń 😀",
    "the quick brown fox jumps over the lazy dog",
    "日本語 and naïve café — 100 €",
    "a  b\n\tc",
]


@cache
def byte_level() -> Tokenizer:
    """Tokens are bytes and their pairs: a letter beyond ASCII spans several. Texts get a begin and an end."""
    return train_bpe(TEXTS[:2] * 3, 290)


@cache
def pieces() -> Tokenizer:
    """As sentencepiece makes them: a space is part of the piece that it precedes, and what is rare falls to bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=296, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator([TEXTS[1]] * 3, trainer)
    bare = json.loads(tokenizer.to_str())  # bytes are ordinary tokens
    bare["added_tokens"] = bare["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(bare))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return tokenizer


@pytest.mark.parametrize("tokenizer", [byte_level(), pieces()], ids=["bytes", "pieces"])
@given(
    text=st.one_of(st.sampled_from(TEXTS), st.text(st.characters(exclude_categories=["Cs"]))), split=st.integers(0, 9)
)
def test_text_told_token_by_token_is_the_text_of_all_tokens(tokenizer: Tokenizer, text: str, split: int) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    whole = tokenizer.decode(ids)
    split = min(split, len(ids))
    while tokenizer.decode(ids[:split]).endswith("\ufffd"):  # a prompt does not end within a letter
        split -= 1
    telling = Detokenizer(tokenizer, ids[:split])
    told = [telling.add(token) for token in ids[split:]]
    assert tokenizer.decode(ids[:split]) + "".join(told) + telling.finish() == whole
    if "\ufffd" not in whole:
        assert not any("\ufffd" in piece for piece in told)


def test_a_letter_of_several_tokens_is_told_when_it_is_whole() -> None:
    tokenizer = byte_level()
    face = tokenizer.encode("😀", add_special_tokens=False).ids
    telling = Detokenizer(tokenizer)
    assert len(face) > 2
    assert [telling.add(token) for token in face] == [*[""] * (len(face) - 1), "😀"]
    assert telling.add(face[0]) == ""
    assert telling.finish().strip("\ufffd") == ""


def test_a_leading_space_is_told_only_within_a_text() -> None:
    tokenizer = pieces()
    fox = tokenizer.encode("fox", add_special_tokens=False).ids
    alone, after = Detokenizer(tokenizer), Detokenizer(tokenizer, tokenizer.encode("the").ids)
    assert "".join(map(alone.add, fox)) == "fox"
    assert "".join(map(after.add, fox)) == " fox"
    unknown = tokenizer.token_to_id("<unk>")  # has no text
    assert [after.add(unknown), "".join(map(after.add, fox))] == ["", " fox"]


def test_a_decoder_goes_on_without_the_end_that_the_tokenizer_sets() -> None:
    tokenizer = byte_level()
    begin, end = tokenizer.token_to_id("<bos>"), tokenizer.token_to_id("<eos>")
    whole = tokenizer.encode("the dog").ids
    assert whole[0] == begin and whole[-1] == end
    assert encode_prompt(ours("gpt2"), tokenizer, "the dog") == whole[:-1]
    assert encode_prompt(ours("gpt2"), tokenizer, "") == [begin]
    assert encode_prompt(ours("t5"), tokenizer, "the dog") == whole
    assert encode_prompt(ours("llama"), pieces(), "the") == pieces().encode("the").ids


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_prompts_some_at_a_time_one_by_one_or_streamed_make_the_same_texts(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, prompts = ours(family), pieces(), ["the fox", "a", "over the lazy dog"]
    together = generate_text(model, tokenizer, prompts, 15, VARIED)
    monkeypatch.setattr(generation, "TOGETHER", 2)
    assert generate_text(model, tokenizer, prompts, 15, VARIED) == together
    assert "".join(stream_text(model, tokenizer, prompts[0], 15, VARIED)) == together[0]
    assert all(together)
    with pytest.raises(UserError, match="prompt 3 has"):
        generate_text(ours("gpt2"), byte_level(), ["the", "fox", "the fox" * 60], 5)


def test_stop_tokens_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    config = hf.GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=16, vocab_size=290, eos_token_id=5)
    hf.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    assert stop_tokens(load_model(tmp_path)) == {5}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [6, 7]}')
    model = load_model(tmp_path)
    assert stop_tokens(model) == {6, 7}
    assert stop_tokens(ours("gpt2")) == set()
    for wrong in ("[[6]]", '"</s>"', "[6, 0.5]", "true"):
        (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": {wrong}}}')
        with pytest.raises(UserError, match="eos_token_id must be a token id or a list of token ids, got"):
            stop_tokens(model)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [6, 7]}')
    with torch.no_grad():
        model.embeddings.token.weight.zero_()
        model.norm.weight.zero_()
        model.norm.bias.fill_(1)
        model.embeddings.token.weight[7] = 1  # whatever it reads, it ends
    assert generate_text(model, byte_level(), ["the fox"], 9) == [""]
    assert "".join(stream_text(model, byte_level(), "fox", 5, stop=())) == byte_level().decode([7] * 5)


# --- Masked words ------------------------------------------------------------------------------------------------

TINY_BERT = {
    "vocab_size": 300, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "max_position_embeddings": 24, "initializer_range": 0.4,
}  # fmt: skip
MASKED = {
    "bert": (hf.BertForMaskedLM, hf.BertConfig(**TINY_BERT), "[MASK]"),
    "roberta": (hf.RobertaForMaskedLM, hf.RobertaConfig(**TINY_BERT, pad_token_id=0), "<mask>"),
}


def with_mask(mask: str) -> Tokenizer:
    tokenizer = train_bpe(TEXTS[:2] * 3, 290)
    tokenizer.add_special_tokens([mask])
    return tokenizer


@pytest.mark.parametrize("family", MASKED)
def test_masks_are_filled_as_in_transformers(family: str, tmp_path: Path) -> None:
    kind, config, mask = MASKED[family]
    torch.manual_seed(1)
    theirs, tokenizer = kind(config).eval(), with_mask(mask)
    theirs.save_pretrained(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = f"the {mask} jumps {mask}"
    ids = torch.tensor([tokenizer.encode(text).ids])
    with torch.no_grad():
        wanted = theirs(ids).logits[ids == tokenizer.token_to_id(mask)].softmax(-1).topk(4)
    got = fill(load_model(tmp_path), tokenizer, text, top=4)
    assert len(got) == 2
    for words, values, indices in zip(got, wanted.values, wanted.indices, strict=True):
        assert [word for word, _ in words] == [
            tokenizer.decode([i], skip_special_tokens=False).strip() for i in indices
        ]
        assert [p for _, p in words] == pytest.approx(values.tolist(), abs=1e-6)
    lines = minilm("fill", tmp_path, text, "--top", 4).stdout.split("\n\n")
    assert [len(block.strip().splitlines()) for block in lines] == [4, 4]
    assert lines[0].startswith(f"{got[0][0][1]:.4f}  ")


def test_what_cannot_be_filled_is_said(tmp_path: Path) -> None:
    kind, config, mask = MASKED["bert"]
    kind(config).save_pretrained(tmp_path)
    model, tokenizer = load_model(tmp_path), with_mask(mask)
    for text, reason in (("the fox", r"no \[MASK\]"), (f"{mask} " * 30, "tokens, but the model's context is 24")):
        with pytest.raises(UserError, match=reason):
            fill(model, tokenizer, text)
    with pytest.raises(UserError, match="no mask token"):
        fill(model, byte_level(), "the fox")
    with pytest.raises(UserError, match="use fill"):
        generate(model, [[1]], 5)
    with pytest.raises(UserError, match="use generate"):
        fill(ours("gpt2"), tokenizer, mask)
    with pytest.raises(UserError, match="no language head"):
        generate(load_model(tmp_path, "encode"), [[1]], 5)


# --- The command -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints with tokenizers, one that writes, one that reads and writes."""
    result = {}
    for family in ("llama", "t5"):
        result[family] = tmp_path_factory.mktemp(family)
        both(family)[0].save_pretrained(result[family])
        pieces().save(str(result[family] / "tokenizer.json"))
    return result


def test_the_command_goes_on_from_one_prompt_from_several_and_from_standard_input(folders: dict[str, Path]) -> None:
    options = ("--max-new-tokens", 9, "--temperature", 1.2, "--top-p", 0.9, "--repetition-penalty", 1.1, "--seed", 4)
    one = minilm("generate", folders["llama"], "the fox", *options).stdout
    written = generate_text(ours("llama"), pieces(), ["the fox"], 9, Sampling(1.2, 0, 0.9, 1.1, 4))
    assert one == f"the fox{written[0]}\n"
    two = minilm("generate", folders["llama"], "the fox", "dog", *options).stdout
    assert two.startswith(one + "\ndog")
    assert minilm("generate", folders["llama"], *options, stdin="the fox\ndog\n").stdout == two
    answer = minilm("generate", folders["t5"], "the fox", "--max-new-tokens", 9, "--dtype", "bfloat16").stdout
    assert answer and not answer.startswith("the fox")


def test_the_command_says_in_a_line_what_it_cannot_do(folders: dict[str, Path], tmp_path: Path) -> None:
    assert "standard input is empty" in refused("generate", folders["llama"], stdin="")
    message = refused("generate", folders["llama"], " ".join(["fox"] * 64))
    assert "leaves no room for new tokens in the model's context of 64" in message
    assert "temperature" in refused("generate", folders["llama"], "the", "--top-k", 5)
    assert "use generate" in refused("fill", folders["t5"], "the [MASK]")
    hf.BertForSequenceClassification(MASKED["bert"][1]).save_pretrained(tmp_path)
    assert "is a classifier; choose a language model" in refused("generate", tmp_path, "the")
    (tmp_path / "config.toml").touch()
    assert f"{tmp_path}: is a run's folder; choose a language model" in refused("generate", tmp_path, "the")
    (tmp_path / "adapted").mkdir()
    said = f"{tmp_path}: is a run's folder; its language model is {tmp_path / 'adapted'}"
    assert said in refused("fill", tmp_path, "the [MASK]")
    (tmp_path / "config.toml").unlink()
    hf.BertModel(MASKED["bert"][1]).save_pretrained(tmp_path)
    assert "is an encoder without a head" in refused("fill", tmp_path, "the [MASK]")
