"""The name of a model in the code of its card: a folder's name in an exported folder, "owner/name" on the Hub."""

from __future__ import annotations

import json
import re

CODE = re.compile(r"```(?:sh|python)\n.*?```", re.DOTALL)
# A name as Python and as a word of a shell, behind what stands before it in a card. One with "/" is of the Hub already.
IN_PYTHON = re.compile(r'(Classifier\.load\(|load_model\(|from_pretrained\(|[ (]model=)"(?:[^"\\/\n]|\\[^/])*"')
IN_SHELL = re.compile(r"""^minilm predict ((?:'[^'/\n]*'|"[^"/\n]*"|[^\s'"/])+)(?= )""", re.MULTILINE)


def with_name(card: str, name: str, *, linear: bool = False) -> str:
    """A model card whose code opens the model by its name on the Hub, "owner/name", instead of a folder's name.

    linear: it is the card of a linear model, of which minilm opens only folders; so it is downloaded first.
    """
    opened = f"hf download {name} --local-dir {name.rpartition('/')[2]}\nminilm predict {name.rpartition('/')[2]}"
    command = opened if linear else f"minilm predict {name}"  # a name on the Hub needs no quotes

    def renamed(code: re.Match[str]) -> str:
        return IN_SHELL.sub(command, IN_PYTHON.sub(lambda found: found[1] + json.dumps(name), code[0]))

    return CODE.sub(renamed, card)
