"""A key that is given twice is refused with its line; everything else is what PyYAML's safe loader reads."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dissect_xr.errors import DissectError
from dissect_xr.probe.readers.strict_yaml import parse_yaml, read_yaml

SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALAR, inner, max_size=3), max_leaves=12
)


@given(VALUE)
def test_what_is_given_once_is_read_as_the_safe_loader_reads_it(value):
    text = yaml.safe_dump(value, allow_unicode=True)
    assert parse_yaml(text, "a.yaml").value == yaml.safe_load(text)


TWICE = {
    "at the top": ("2: road\n3: car\n2: pavement\n", "'2' is given twice, on line 1 already", 3),
    "below a key": ("a:\n  b: 1\n  c: 2\n  b: 1\n", "'b' is given twice, on line 2 already", 4),
    "in a list": ("- a: 1\n- {a: 1, a: 2}\n", "'a' is given twice, on line 2 already", 2),
    "written in two ways": ("10: a\n0xA: b\n", "'10' is given twice, on line 1 already", 2),
    "quoted and not": ("a: 1\n'a': 2\n", "'a' is given twice", 2),
    "equal as numbers": ("1: a\n1.0: b\n", r"'1\.0' is given twice", 2),
    "true is one": ("1: a\nyes: b\n", "'True' is given twice", 2),
    "merged twice": ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a\n", "'<<' is given twice, on line 3 already", 4),
    "below an alias": ("a: &a\n  x: 1\n  x: 2\nb: *a\n", "'x' is given twice, on line 2 already", 3),
    "empty keys": ("~: 1\n? \n: 2\n", "'None' is given twice", 2),
}


@pytest.mark.parametrize("case", TWICE)
def test_a_key_given_twice_is_named_with_both_lines(case):
    text, message, line = TWICE[case]
    with pytest.raises(DissectError, match=rf"^a\.yaml, line {line}: {message}.*Keep one of the two\."):
        parse_yaml(text, "a.yaml")


@pytest.mark.parametrize("text", ["1:20", "190:20:30", "12:30:45.5", "-1:30"])
def test_what_looks_like_a_time_is_a_text(text):
    """YAML 1.1 reads 1:20 as 80, by numbers to the base 60."""
    assert isinstance(yaml.safe_load(f"{text}: a"), dict)
    assert next(iter(yaml.safe_load(f"{text}: a"))) != text
    assert parse_yaml(f"{text}: {text}", "a.yaml").value == {text: text}
    assert parse_yaml("7: 1_000", "a.yaml").value == {7: 1000}


@pytest.mark.parametrize(("text", "here", "elsewhere"), [("010", 8, 10), ("-017", -15, -17), ("01_0", 8, 10)])
def test_a_number_that_two_versions_of_yaml_read_in_two_ways_is_refused(text, here, elsewhere):
    with pytest.raises(DissectError, match=rf"line 2 .*{text} is {here} by YAML 1\.1 and {elsewhere} by YAML 1\.2"):
        parse_yaml(f"1: a\n{text}: b", "a.yaml")
    assert parse_yaml("007: a\n'010': b", "a.yaml").value == {7: "a", "010": "b"}


def test_a_merged_key_may_be_replaced():
    text = "base: &base {width: 1, depth: 2}\nwide: &wide {<<: *base, width: 3}\nwidest: {<<: *wide, width: 4}\n"
    assert parse_yaml(text, "a.yaml").value == yaml.safe_load(text)
    assert parse_yaml(text, "a.yaml").value["widest"] == {"width": 4, "depth": 2}


def test_an_alias_of_itself_does_not_hang():
    found = parse_yaml("&a [1, *a]", "a.yaml").value
    assert found[0] == 1
    assert found[1] is found


def test_aliases_of_aliases_are_looked_at_once():
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    assert parse_yaml("\n".join(lines), "a.yaml").where("a39") == "a.yaml, line 40"


def test_every_key_has_its_line():
    text = "probe:\n  kind: masks\n\n  ignore:\n  - 255\n  - 254\nlayers: all\n"
    found = parse_yaml(text, "r.yaml")
    assert found.where("probe", "kind") == "r.yaml, line 2"
    assert found.where("probe", "ignore") == "r.yaml, line 4"
    assert found.where("probe", "ignore", 1) == "r.yaml, line 6"
    assert found.where("layers") == "r.yaml, line 7"
    assert found.where("probe", "ignore", 1, "more") == "r.yaml, line 6"
    assert found.where("nothing") == found.where() == "r.yaml"


BAD = {
    "list not closed": ("a: 1\nb: [1,\n", r"line 3 is not readable as YAML"),
    "tab": ("a:\n\tb: 1\n", r"line 2 is not readable as YAML: found character '\\t'"),
    "two documents": ("a: 1\n---\nb: 1\n", r"line 2 is not readable as YAML: but found another document"),
    "unknown tag": ("a: 1\nb: !!python/name:os.system\n", r"line 2 is not readable as YAML"),
    "date that is none": ("a: 1\nb: 2024-13-45\n", r"line 2 is not readable as YAML: '2024-13-45'.*month"),
    "key that is none": ("a: 1\n[1, 2]: 3\n", r"line 2 is not readable as YAML: \[1, 2\] cannot be a key"),
    "number that is none": ("!!int x: 3\n", r"line 1 is not readable as YAML"),
    "truth that is none": ("- !!bool x\n", r"line 1 is not readable as YAML"),
    "time that is none": ("- 1\n- !!timestamp x\n", r"line 2 is not readable as YAML"),
    "control character": ("a: \x01\n", r"not readable as YAML"),
    "too deep": ("[" * 20_000, r"not readable as YAML: it is nested too deeply"),
}


@pytest.mark.parametrize("case", BAD)
def test_text_that_is_no_yaml_is_refused_with_its_line(case):
    text, message = BAD[case]
    with pytest.raises(DissectError, match=rf"^a\.yaml: expected a table; {message}"):
        parse_yaml(text, "a.yaml", "a table")


def test_files_are_utf8_with_or_without_a_mark(tmp_path):
    path = tmp_path / "a.yaml"
    for text in ("1: straße\n", "\ufeff1: straße\n"):
        path.write_text(text, encoding="utf-8")
        assert read_yaml(path, "a table").value == {1: "straße"}
    path.write_bytes("1: straße\n".encode("cp1252"))
    with pytest.raises(DissectError, match=r"a\.yaml: expected a table; not readable as YAML.*Save it as UTF-8"):
        read_yaml(path, "a table")


def test_a_missing_file_and_a_folder_are_said(tmp_path):
    with pytest.raises(DissectError, match=r"none\.yaml: expected a table, found no file"):
        read_yaml(tmp_path / "none.yaml", "a table")
    with pytest.raises(DissectError, match="expected a table, cannot read it"):
        read_yaml(tmp_path, "a table")


def test_an_empty_text_is_none():
    assert parse_yaml("", "a.yaml").value is None
    assert parse_yaml("# nothing\n", "a.yaml").value is None
