"""Short names for the layers that people ask for most, per family of models.

Knows: how torchvision, timm and transformers call blocks, MLPs, heads and keys.
Does not know: models: names are matched with those that a forward pass shows.

`mlp` is what goes into the last linear map of an MLP: its hidden units, after the gate where it has one. `head` is what
goes into the last linear map of attention: the output of all heads side by side, units being head x channel.
"""

import re
from collections.abc import Mapping, Sequence

from dissect_xr.activations.layouts.recognise import Guess

_BLOCK = (
    r"(?:.*\.)?(?:blocks|layers?|h|resblocks)\.\d+|(?:.*\.)?encoder_layer_\d+|(?:.*\.)?(?:stages|layers)\.\d+\.blocks\.\d+"
    r"|features\.\d+\.\d+|layer\d\.\d+"
)

SHORT: Mapping[str, str] = {
    "block": rf"(?:{_BLOCK})(?:\[0\])?",
    "mlp": rf"(?:{_BLOCK})\.mlp\.(?:fc2|w3|down_proj|3) <",
    "attention": rf"(?:{_BLOCK})\.(?:attn|attention|self_attn|self_attention)(?:\[0\])?",
    "head": rf"(?:{_BLOCK})\.(?:attn|attention|self_attn)\.(?:proj|out_proj|o_proj) <",
    "queries": rf"(?:{_BLOCK})\.(?:attn|attention|self_attn)\.(?:q_norm|q_proj)",
    "keys": rf"(?:{_BLOCK})\.(?:attn|attention|self_attn)\.(?:k_norm|k_proj)",
    "values": rf"(?:{_BLOCK})\.(?:attn|attention|self_attn)\.v_proj",
}
"""Short name -> the names of taps that it stands for."""


def shortcuts(guesses: Mapping[str, Guess], modules: Sequence[str]) -> dict[str, list[str]]:
    """Short name -> the layers that it stands for in this model; those without any are left out.

    A block that contains blocks is left out: the smallest ones are meant, as far as they have parts.
    """
    found = {}
    for short, pattern in SHORT.items():
        names = [name for name, guess in guesses.items() if guess.layouts and re.fullmatch(pattern, name)]
        if short == "block":
            parts = [(name, f"{name.removesuffix('[0]')}.") for name in names]
            inside = [n for n, p in parts if any(other.startswith(p) for other in guesses)]
            names = [n for n, p in parts if n in inside and not any(other.startswith(p) for other in inside)]
        if names:
            found[short] = names
    return found


def offered(guesses: Mapping[str, Guess], modules: Sequence[str]) -> dict[str, list[str]]:
    """The same under the names that a recipe has to give: with a colon where a module is called so.

    >>> from dissect_xr.activations.layouts.layout import PLAIN
    >>> offered({"blocks.0": Guess((PLAIN,), ""), "blocks.0.fc": Guess((), "")}, ["block"])
    {':block': ['blocks.0']}
    """
    return {f":{s}" if s in modules else s: names for s, names in shortcuts(guesses, modules).items()}
