"""What the parts of Pascal-Part are called: `llleg_2` is a left lower leg.

Knows: the abbreviations that the set's own table (part2ind.m) explains.
Does not know: files.
"""

import re

SIDES = frozenset({"left", "right", "front", "back", "upper", "lower", "side"})
"""Words that Broden leaves out of the names of parts, so that the left arm and the right arm are one concept."""

_LONG = {
    "lwing": "left wing", "rwing": "right wing", "fwheel": "front wheel", "bwheel": "back wheel",
    "handlebar": "handle bar", "chainwheel": "chain wheel", "leye": "left eye", "reye": "right eye",
    "lear": "left ear", "rear": "right ear", "lebrow": "left eyebrow", "rebrow": "right eyebrow",
    "lhorn": "left horn", "rhorn": "right horn", "lleg": "left leg", "rleg": "right leg", "lfoot": "left foot",
    "rfoot": "right foot", "lhand": "left hand", "rhand": "right hand", "luarm": "left upper arm",
    "llarm": "left lower arm", "ruarm": "right upper arm", "rlarm": "right lower arm", "luleg": "left upper leg",
    "llleg": "left lower leg", "ruleg": "right upper leg", "rlleg": "right lower leg", "lfleg": "left front leg",
    "rfleg": "right front leg", "lbleg": "left back leg", "rbleg": "right back leg", "lfpa": "left front paw",
    "rfpa": "right front paw", "lbpa": "left back paw", "rbpa": "right back paw", "lfho": "left front hoof",
    "rfho": "right front hoof", "lbho": "left back hoof", "rbho": "right back hoof", "lfuleg": "left front upper leg",
    "lflleg": "left front lower leg", "rfuleg": "right front upper leg", "rflleg": "right front lower leg",
    "lbuleg": "left back upper leg", "lblleg": "left back lower leg", "rbuleg": "right back upper leg",
    "rblleg": "right back lower leg", "frontside": "front side", "leftside": "left side", "rightside": "right side",
    "backside": "back side", "roofside": "roof side", "leftmirror": "left mirror", "rightmirror": "right mirror",
    "fliplate": "front license plate", "bliplate": "back license plate", "hfrontside": "head front side",
    "hleftside": "head left side", "hrightside": "head right side", "hbackside": "head back side",
    "hroofside": "head roof side", "cfrontside": "coach front side", "cleftside": "coach left side",
    "crightside": "coach right side", "cbackside": "coach back side", "croofside": "coach roof side",
}  # fmt: skip


def part_name(short: str) -> str:
    """The name of a part in whole words, without the number that tells several of an object apart.

    >>> part_name("llleg"), part_name("cfrontside_2"), part_name("torso")
    ('left lower leg', 'coach front side', 'torso')
    """
    plain = re.sub(r"_\d+$", "", short)
    return _LONG.get(plain, plain)


def without_sides(name: str) -> str:
    """The name of a part without the words that say which of several it is; as it is where no other word is left.

    >>> without_sides("left lower leg"), without_sides("head roof side"), without_sides("front side")
    ('leg', 'head roof', 'front side')
    """
    return " ".join(word for word in name.split() if word not in SIDES) or name
