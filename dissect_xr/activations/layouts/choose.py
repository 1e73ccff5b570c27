"""Which taps a recording's `layers` select: names, patterns, short names, taps with a layout of their own.

Knows: how a text selects, in which order its readings are tried, and what is refused.
Does not know: how layouts are guessed or tested.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from dissect_xr.activations.layouts.families import shortcuts
from dissect_xr.activations.layouts.layout import Layout
from dissect_xr.activations.layouts.recognise import Guess, Recogniser, said
from dissect_xr.activations.references import shortlist
from dissect_xr.activations.request import LayerChoice
from dissect_xr.activations.tapping.calls import Seen
from dissect_xr.activations.tapping.name import Tap, parse_tap
from dissect_xr.activations.taps import Layers, nothing_selected, select_layers
from dissect_xr.errors import DissectError

Choice = str | LayerChoice
"""A text, or a text with the layout that it has."""


AS_GIVEN = "as the recipe says"
"""What a layer was taken for whose layout is given."""


@dataclass(frozen=True)
class Wanted:
    """A layer that is to be recorded."""

    name: str
    tap: Tap
    layouts: tuple[Layout, ...]
    """that it may have, the likeliest first"""
    is_sure: bool
    """whether nothing has to be tested"""
    taken_for: str
    seen: Seen
    """the tensor of one image"""

    @property
    def what(self) -> str:
        """Its tensor, in a message."""
        return self.seen.what

    def said(self, layout: Layout) -> str:
        """A layout in a few words."""
        return said(layout)


def choose(
    available: Layers, guesses: Mapping[str, Guess], choices: Sequence[Choice], recogniser: Recogniser
) -> dict[str, Wanted]:
    """Layer -> what was chosen, in order of execution, without repetition.

    Raises
    ------
    DissectError
        If a choice selects no layer; the message says why, and names layers that there are.
    """
    plain = plain_layers(available, guesses)
    found: dict[str, Wanted] = {}
    for choice in choices:
        text, layout = (choice, None) if isinstance(choice, str) else (choice.layer, choice.layout)
        for one in _selected(available, plain, guesses, text, layout, recogniser):
            given = one.name in found and found[one.name].taken_for == AS_GIVEN
            if given and layout is None:
                continue  # what is said of one layer stands, whatever patterns match it
            if given and found[one.name].layouts != one.layouts:
                raise DissectError(f"layer {one.name}: is named with two layouts. Name it once.")
            found[one.name] = one
    if not found:
        select_layers(plain, [])  # raises with the layers there are
    order = {name: n for n, name in enumerate(available.taps)}
    return dict(sorted(found.items(), key=lambda item: (order[without_token(item[1].tap)], item[0])))


def plain_layers(available: Layers, guesses: Mapping[str, Guess]) -> Layers:
    """The modules that are called once and return one tensor, as layers where they were recognised, and the others."""
    maps: dict[str, tuple[int, int, int]] = {}
    others = dict(available.others)
    for name, guess in guesses.items():
        if not available.taps[name].tap.is_plain:
            continue
        if guess.layouts:
            maps[name] = shape_of(available.taps[name], guess.layouts[0])
            others.pop(name, None)
        elif name in available.maps or len(available.taps[name].shape) > 2:
            others[name] = guess.why
    return Layers(maps, others, available.taps)


def shape_of(seen: Seen, layout: Layout) -> tuple[int, int, int]:
    """(units, height, width) of the maps in a tensor of one image."""
    sizes = dict(zip(layout.axes, seen.shape, strict=True))
    units = sizes["unit"] * sizes.get("head", 1)
    if layout.kind in ("token", "cell"):
        return units, 1, 1
    height, width = layout.grid or (sizes["y"], sizes["x"])
    return units, height, width


def _selected(
    available: Layers,
    plain: Layers,
    guesses: Mapping[str, Guess],
    text: str,
    layout: Layout | None,
    recogniser: Recogniser,
) -> list[Wanted]:
    """What one choice selects. A text is read as a module's name, a pattern of names, a short name, and a tap."""
    names = [name for name in available.taps if available.taps[name].tap.is_plain]
    pattern = "*" if text == "all" and "all" not in names else text
    of_modules = [n for n in plain.maps if n == pattern or fnmatchcase(n, pattern)]
    if layout is not None:
        of_modules = [n for n in names if n == pattern] or [n for n in names if fnmatchcase(n, pattern)]
    taps = _taps_named(available, pattern)
    if pattern in names or (of_modules and not taps):
        if layout is None and pattern in names and pattern not in plain.maps:
            raise DissectError(nothing_selected(plain, pattern))
        chosen = {name: parse_or(name, names) for name in of_modules}
    elif of_modules and taps:
        raise DissectError(
            f"layer {text!r}: may be the pattern that matches {shortlist(of_modules, 3)}, or the tap "
            f"{shortlist(map(str, taps), 3)}. Name the modules themselves."
        )
    elif taps:
        chosen = {str(tap): tap for tap in taps}
    else:
        chosen = {name: parse_or(name, names) for name in shortcuts(guesses, names).get(text.removeprefix(":"), ())}
    if layout is not None and pattern not in chosen:
        chosen = _that_fit(available, chosen, layout, recogniser)
    if not chosen:
        raise DissectError(_why_none(available, plain, pattern))
    return [_wanted(available, guesses, name, tap, layout, recogniser) for name, tap in chosen.items()]


def _that_fit(available: Layers, chosen: Mapping[str, Tap], layout: Layout, recogniser: Recogniser) -> dict[str, Tap]:
    """Those that a pattern selects whose tensors can have the layout; raises where there are none."""
    found, refused = {}, []
    for name, tap in chosen.items():
        try:
            recogniser.filled(name, layout, available.taps[without_token(tap)])
            found[name] = tap
        except DissectError as error:
            refused.append(error)
    if refused and not found:
        raise refused[0]
    return found


def parse_or(name: str, modules: Sequence[str]) -> Tap:
    """The tap of a name, which may be any characters where a module is called so."""
    return Tap(name) if name in modules else parse_tap(name)


def _taps_named(available: Layers, pattern: str) -> list[Tap]:
    """The taps that a text names with more than a module's name."""
    try:
        tap = parse_tap(pattern)
    except DissectError:
        return []
    if tap.is_plain and "#" not in pattern:  # relu#* is a pattern of calls
        return []
    token, wanted = tap.token, str(replace(tap, token=None)).replace("[", "[[]")
    found = [seen.tap for name, seen in available.taps.items() if fnmatchcase(name, wanted)]
    return [replace(one, token=token) for one in found]


def _wanted(
    available: Layers,
    guesses: Mapping[str, Guess],
    name: str,
    tap: Tap,
    layout: Layout | None,
    recogniser: Recogniser,
) -> Wanted:
    seen, guess = available.taps[without_token(tap)], guesses[without_token(tap)]
    if tap.token is not None:
        if layout is not None:
            raise DissectError(f"layer {name}: a token alone has no other layout. Leave out `layout`.")
        return _one_token(name, tap, seen, guess)
    if layout is not None:
        filled = recogniser.filled(name, layout, seen)
        return Wanted(name, tap, (filled,), filled.is_plain and guess.is_sure, AS_GIVEN, seen)
    if not guess.layouts:
        raise DissectError(f"layer {name}: {guess.why}.")
    return Wanted(name, tap, guess.layouts, guess.is_sure, guess.why, seen)


def _one_token(name: str, tap: Tap, seen: Seen, guess: Guess) -> Wanted:
    assert tap.token is not None
    tokens = [layout for layout in guess.layouts if layout.kind in ("tokens", "heads")]
    if not tokens:
        raise DissectError(f"layer {name}: {without_token(tap)} has no tokens, it was taken for {guess.why}.")
    first = tokens[0]
    if tap.token >= first.prefix:
        raise DissectError(
            f"layer {name}: {first.prefix} tokens stand before the grid of {without_token(tap)}, none with the index "
            f"{tap.token}. The others are cells of its map."
        )
    layout = Layout("token", axes=first.axes, index=tap.token)
    return Wanted(name, tap, (layout,), False, said(layout), seen)


def without_token(tap: Tap) -> str:
    """The name of the tap that a token is taken of."""
    return str(replace(tap, token=None))


def _why_none(available: Layers, plain: Layers, text: str) -> str:
    """Why a text selects nothing."""
    try:
        module = parse_tap(text).module
    except DissectError:
        module = text
    calls = [name for name, seen in available.taps.items() if seen.tap.module == module and seen.tap.side == "output"]
    reason = plain.others.get(module)
    if calls and (module != text or (reason is not None and "times in one forward pass" in reason)):
        return f"layer {text!r}: module {module} gives {shortlist(calls)}. Name one of them."
    if reason is not None and module != text:
        return f"layer {text!r}: module {module} {reason}."
    return nothing_selected(plain, text)
