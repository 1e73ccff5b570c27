"""Tables of synonyms say which names are one, or are refused where they contradict themselves."""

import pytest

from dissect_xr.errors import DissectError
from dissect_xr.probe.sources.synonyms import Synonyms, read_synonyms

TABLE = {"object": {"sofa": ["couch", "settee"]}, "part": {"head": ["face"]}}


def test_a_name_stands_for_others_in_its_category_only():
    found = Synonyms.of(TABLE)
    assert [found.name("object", name) for name in ("sofa", "couch", "settee", "face")] == [
        "sofa",
        "sofa",
        "sofa",
        "face",
    ]
    assert (found.name("part", "face"), found.name("part", "couch")) == ("head", "couch")


def test_the_order_of_a_table_makes_no_difference():
    turned = {"part": {"head": ["face"]}, "object": {"sofa": ["settee", "couch", "sofa"]}}
    assert (
        Synonyms.of(turned).table
        == Synonyms.of(TABLE).table
        == {
            "object": {"sofa": ["couch", "settee"]},
            "part": {"head": ["face"]},
        }
    )


def test_a_table_in_a_file(tmp_path):
    (tmp_path / "synonyms.yaml").write_text("object:\n  sofa: [couch, settee]\npart: {head: [face]}\n")
    assert read_synonyms(tmp_path / "synonyms.yaml") == Synonyms.of(TABLE)


BAD = {
    "of two": (
        "object: {sofa: [couch], settee: [couch]}",
        r"'couch' of the category 'object' is a synonym of 'sofa' and of 'settee'",
    ),
    "a chain": (
        "object: {sofa: [couch], couch: [settee]}",
        r"'couch' of the category 'object' stands for other names, and 'sofa' stands for it",
    ),
    "one name": ("object: {sofa: couch}", r"synonyms\.yaml, object, sofa: expected a list of names"),
    "no categories": ("sofa: [couch]", r"synonyms\.yaml, sofa: expected {category: {name: "),
    "a list": ("[sofa, couch]", r"synonyms\.yaml: expected {category"),
    "a truth value": ("object: {sofa: [no]}", r"expected names, got False.*needs quotes"),
    "a number as name": ("object: {5: [five]}", r"synonyms\.yaml, object: expected {category"),
    "twice": ("object: {sofa: [couch]}\nobject: {}", r"line 2: 'object' is given twice"),
    "empty": ("", r"synonyms\.yaml: expected {category.*got None"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_named(tmp_path, case):
    text, message = BAD[case]
    (tmp_path / "synonyms.yaml").write_text(text)
    with pytest.raises(DissectError, match=message):
        read_synonyms(tmp_path / "synonyms.yaml")
