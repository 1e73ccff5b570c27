"""The name of a tap: which module, which of its calls, its output or an input, which element of that.

Knows: the grammar, how a name is read, and its one canonical spelling, which is the name of the layer.
Does not know: models, or which names a model has (`calls`). Torch is not imported.

::

    MODULE [#CALL] [ <] [[KEY]]... [ token N]

MODULE is the name that torch gives it. ``#2`` is the second of its calls in a forward pass; it is left out where the
module is called once. Without ``<`` the output is meant, with it what the module is given: its first argument, or with
a key the argument at this position or of this name. Every ``[KEY]`` after that goes one step into a tuple, list, dict
or ModelOutput, by a position that counts from 0 or by a name. ``token 0`` is the first token alone, as a map of one
cell: a class token or a register.

======================================  ============================================================================
name                                    what is taken
======================================  ============================================================================
``layer1.0``                            the output of a module
``blocks.3.mlp.fc2 <``                  its input
``decoder.0 <[memory]``                 its argument of that name; ``<[1]`` is its second one by position
``encoder[last_hidden_state]``          an element of its output; ``attention[0]`` the first of a tuple
``layer1.0.relu#2``                     the output of its second call; ``relu#2 <`` what that call is given
``blocks.11 token 0``                   the class token
======================================  ============================================================================

>>> parse_tap("encoder.0.attn#2<[1][states]")
Tap(module='encoder.0.attn', call=2, side='input', path=('1', 'states'), token=None)
>>> str(parse_tap("encoder.0.attn#2<[1][states]"))
'encoder.0.attn#2 <[1][states]'
"""

import re
from dataclasses import dataclass
from typing import Literal

from dissect_xr.errors import DissectError


@dataclass(frozen=True)
class Tap:
    """Where in a forward pass a tensor is taken."""

    module: str
    """its name, or a pattern of names"""
    call: int | None = None
    """which of its calls, from 1; None where it has one"""
    side: Literal["output", "input"] = "output"
    path: tuple[str, ...] = ()
    """steps into what the module returns; of an input, the first step names the argument"""
    token: int | None = None
    """the token that is taken alone, from 0; None for all"""

    def __str__(self) -> str:
        call = "" if self.call is None else f"#{self.call}"
        side = " <" if self.side == "input" else ""
        token = "" if self.token is None else f" token {self.token}"
        return f"{self.module}{call}{side}{''.join(f'[{key}]' for key in self.path)}{token}"

    @property
    def is_plain(self) -> bool:
        """Whether it is all that a module returns, in a module that is called once."""
        return self == Tap(self.module)


_GRAMMAR = re.compile(
    r"(?P<module>.+?)(?:#(?P<call>[0-9]+))?(?P<side>\s*<\s*)?(?P<path>(?:\[[^\[\]]+\])*)(?:\s+token\s+(?P<token>[0-9]+))?"
)


def parse_tap(text: str) -> Tap:
    """The tap of a name; a name that says nothing but a module's is the output of that.

    Raises
    ------
    DissectError
        If the text names no module, or calls are counted from 0.

    Examples
    --------
    >>> parse_tap("layer1.0").is_plain, parse_tap("layer1.0.relu#2").call
    (True, 2)
    >>> parse_tap("blocks.11 token 0").token
    0
    """
    found = _GRAMMAR.fullmatch(text.strip())
    if found is None or found["module"].startswith("#") or "<" in found["module"]:
        raise DissectError(
            f"layer {text!r}: expected MODULE, and after it #CALL, <, [KEY] or token N where that is meant, such as "
            "'blocks.3.mlp.fc2 <', 'encoder[last_hidden_state]', 'layer1.0.relu#2' or 'blocks.11 token 0'."
        )
    call = None if found["call"] is None else int(found["call"])
    if call == 0:
        raise DissectError(f"layer {text!r}: calls of a module are counted from 1.")
    path = tuple(re.findall(r"\[([^\[\]]+)\]", found["path"]))
    token = None if found["token"] is None else int(found["token"])
    return Tap(found["module"], call, "input" if found["side"] else "output", path, token)
