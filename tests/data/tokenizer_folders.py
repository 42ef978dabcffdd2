"""Folders of tokenizers' parts as they are published, small, and the texts on which tokenizers differ."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

ROOT = Path(__file__).parents[2]
OTHER_LANGUAGES = """
Zażółć gęślą jaźń, a potem idź do domu. Wszystkie dzieci są nasze.
Größe, Straße und Übermut kommen selten allein. L'été dernier, nous avons mangé des crêpes à la crème brûlée.
El niño comió mañana; ¿por qué no? Быстрая коричневая лиса прыгает через ленивую собаку.
Η γρήγορη αλεπού πηδάει πάνω από το σκυλί. 我们今天去北京看电影，明天回家。機械学習は楽しいです。
مرحبا بالعالم، كيف حالك اليوم؟ שלום עולם, מה שלומך היום? 안녕하세요 세계 여러분. สวัสดีชาวโลก नमस्ते दुनिया
"""
NASTY = {
    "empty word": "a",
    "plain": "The quick brown fox jumps over the lazy dog.",
    "capitals": "THE Quick BROWN fox, iPhone and McDonald's",
    "accents": "Zażółć gęślą jaźń; crème brûlée à la carte, naïve façade",
    "combining marks": "Zaz\u0307o\u0301l\u0301c\u0301 e\u0301te\u0301 a\u030a\u0323",
    "many marks": "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035a\u032f",
    "emoji": "I love it 😀👍🏽 so much 🎉🎉🎉",
    "emoji family": "👨‍👩‍👧‍👦 and 🏳️‍🌈 and 🇵🇱",
    "right to left": "مرحبا بالعالم، שלום עולם",
    "direction marks": "abc \u202edef\u202c \u200fghi\u200e",
    "chinese": "我们今天去北京看电影，明天回家。",
    "japanese": "機械学習は楽しいです。ﾊﾝｶｸ ガ ガ",
    "korean": "안녕하세요 세계 여러분 \u1112\u1161\u11ab",
    "thai and hindi": "สวัสดีชาวโลก नमस्ते दुनिया",
    "mixed scripts": "fox狐狸lisのキツネ",
    "full width": "Ｆｕｌｌ　ｗｉｄｔｈ １２３！",
    "ligatures": "ﬁne ﬂow ﬃ Ǆ ㎏ ½ ² ①",
    "turkish": "İstanbul ISPARTA ıslak",
    "german": "Straße STRASSE ẞ",
    "greek": "ΟΔΟΣ οδός Σίσυφος",
    "control characters": "a\x00b\x01c\x07d\x1be\x7ff",
    "line ends": "one\ntwo\r\nthree\rfour\n\n\nfive",
    "tabs": "one\ttwo\t\tthree",
    "spaces": "   two  three   four    ",
    "other spaces": "a\u00a0b\u2003c\u3000d\u200be\ufefff\u2028g\u2029h",
    "soft hyphen": "co\u00adoperate zero\u200dwidth\u200cjoiners",
    "punctuation": "Hello...!!! (well?) -- \"quoted\" ``tex'' 'single' «guillemets» … — –",
    "numbers": "1,234,567.89 0x1F 10:30 2024-01-31 3.14e-10 ١٢٣",
    "links": "See https://example.com/a_b?c=d&e=f#g or mail me@example.com @someone #tag",
    "code": "def f(x):\n    return x**2  # comment\n\treturn {'a': [1, 2]}",
    "special tokens": "a [CLS] b [SEP] c [MASK] d <s> e </s> f <mask> g <pad> h <|endoftext|> i <extra_id_0> j",
    "lone marks": "\u0301 \u0302x",
    "private use and rare": "\ue000\uf8ff \U000e0041 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 \ufffd \uffff",
    "one long word": "supercalifragilistic" * 30,
    "a hundred thousand characters": ("The fox, naïve and Größe, 我们 jumps 😀 over the dog. " * 2100)[:100_000],
}


@cache
def corpus() -> list[str]:
    """Lines to train on: this project's pages, and other languages."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))[:2]]
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [*lines[:600], *OTHER_LANGUAGES.strip().splitlines() * 5]


def write_json(folder: Path, name: str, content: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def word_pieces(folder: Path, special: list[str], lowercase: bool = True) -> None:
    """vocab.txt."""
    (folder / "vocab.txt").write_text(_word_pieces(tuple(special), lowercase), encoding="utf-8")


@cache
def _word_pieces(special: tuple[str, ...], lowercase: bool) -> str:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=list(special), show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    by_number = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return "".join(f"{piece}\n" for piece, _ in by_number)


def byte_pairs(folder: Path, special: list[str]) -> None:
    """vocab.json and merges.txt."""
    _byte_pairs(tuple(special)).model.save(str(folder))


@cache
def _byte_pairs(special: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=list(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


@cache
def _trained(kind: str, settings: str) -> bytes:
    import sentencepiece  # of the development tools only

    written = io.BytesIO()
    options = {"vocab_size": 700, "hard_vocab_limit": False, "minloglevel": 2, **json.loads(settings)}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=written, model_type=kind, num_threads=1, **options
    )
    return written.getvalue()


def sentence_pieces(path: Path, kind: str = "unigram", **settings: Any) -> None:
    """A SentencePiece model in this file."""
    path.write_bytes(_trained(kind, json.dumps(settings)))
