"""What a fingerprint is made of: every field that is said, and nothing that only says where files lie."""

from dissect_xr.probe.label_set import Concept, Row


def test_a_concept_has_what_all_have_and_what_is_not_usual() -> None:
    usual = {"number": 3, "name": "cat", "category": "object", "own_domain": False, "parent": 0}
    assert Concept(3, "cat", "object").content == usual
    rare = Concept(3, "cat", "object", True, 2, "coco", "mixed", (4, 9)).content
    assert rare == usual | {
        "own_domain": True, "parent": 2, "among": "coco", "label_source": "mixed", "agreement": (4, 9),
    }  # fmt: skip


def test_a_row_has_all_but_where_it_was_read_and_the_rows_it_is_made_of_within() -> None:
    plain = Row("a.jpg", "train", ((0, "a.png"),), (7,), (4, 5), "index.csv, line 2")
    content = {
        "image": "a.jpg", "split": "train", "maps": ((0, "a.png"),), "whole": (7,), "size": (4, 5), "where": "",
        "shapes": None, "verified": (),
    }  # fmt: skip
    assert plain.content == content
    merged = Row("m/a.jpg", "all", (), (), None, "here", "[]", (7,), ((1, 7),), ((0, plain),))
    assert merged.content == {
        "image": "m/a.jpg", "split": "all", "maps": (), "whole": (), "size": None, "where": "", "shapes": "[]",
        "verified": (7,), "segments": ((1, 7),), "parts": [[0, content]],
    }  # fmt: skip
