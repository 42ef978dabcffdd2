"""A program that classifies with an exported ONNX graph, for model cards and docs/deploying.md."""

from __future__ import annotations

from minilm.reporting.export_facts import ExportFacts

READ = '[line.rstrip("\\n") for line in open(sys.argv[2], encoding="utf-8")]'
READ_PAIRS = '[tuple(line.rstrip("\\n").split("\\t")) for line in open(sys.argv[2], encoding="utf-8")]'
SCRIPT = """\
import json, sys
import numpy as np, onnxruntime, tokenizers

folder, texts = sys.argv[1], {read}
facts = json.load(open(f"{{folder}}/export.json", encoding="utf-8"))
tokenizer = tokenizers.Tokenizer.from_file(f"{{folder}}/tokenizer.json")
tokenizer.enable_truncation(facts["max_tokens"], direction=facts["truncation_side"])
tokenizer.enable_padding(pad_id=facts["pad_id"])
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")
for i in range(0, len(texts), 32):
    rows = tokenizer.encode_batch(texts[i : i + 32])
    values = ([r.ids for r in rows], [r.attention_mask for r in rows], [r.type_ids for r in rows])
    feed = {{name: np.array(value) for name, value in zip(facts["onnx"]["inputs"], values)}}
    [z] = session.run(["logits"], feed)
"""
SINGLE = """\
    print(*(facts["labels"][label] for label in z.argmax(1)), sep="\\n")
"""
WITH_THRESHOLD = """\
    p = 1 / (1 + np.exp((z[:, 0] - z[:, 1]) / facts["temperature"][0]))  # of the second label
    print(*(facts["labels"][int(given)] for given in p >= facts["threshold"]), sep="\\n")
"""
MULTI = """\
    given = 1 / (1 + np.exp(-z / facts["temperature"])) >= facts["threshold"]
    print(*(", ".join(np.array(facts["labels"])[row]) for row in given), sep="\\n")
"""
SIGMOID = "    print(*(1 / (1 + np.exp(-z[:, 0]))).tolist(), sep='\\n')\n"
RAW = "    print(*z[:, 0].tolist(), sep='\\n')\n"


def onnx_script(facts: ExportFacts) -> str:
    """The program: ``python SCRIPT FOLDER FILE`` prints the labels of each line of a file; a pair has a tab between.

    It imports onnxruntime, tokenizers and numpy, and nothing else that must be installed.
    """
    end = MULTI if facts.kind == "multi" else SINGLE if facts.threshold is None else WITH_THRESHOLD
    if facts.kind == "score":
        end = RAW if facts.raw else SIGMOID
    return SCRIPT.format(read=READ_PAIRS if facts.pairs else READ) + end
