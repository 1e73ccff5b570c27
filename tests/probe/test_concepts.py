"""A table of concepts is read as it was meant, or refused with file and line."""

import re
from pathlib import Path

import pytest

from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import Concept
from dissect_xr.probe.readers.concepts import read_concepts

ROAD, CAR, WHEEL = Concept(1, "road", "object"), Concept(2, "car", "object"), Concept(3, "wheel", "part")


def table(folder: Path, text: str, name: str = "concepts.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "3: {name: wheel, category: part}\n1: road\n2: {name: car}\n"),
        ("a.yml", "1: road\n2:\n  name: car\n  category: object\n3:\n  category: part\n  name: wheel\n"),
        ("a.csv", "number,name,category\n3,wheel,part\n1,road,object\n2,car,\n"),
        ("a.CSV", "name;number;category\nwheel;3;part\nroad;1;\ncar;2;\n"),
        ("a.tsv", "number\tname\tcategory\n1\troad\t\n2\tcar\tobject\n3\twheel\tpart\n"),
    ],
)
def test_every_form_says_the_same(tmp_path, name, text):
    assert read_concepts(table(tmp_path, text, name)) == ((ROAD, CAR, WHEEL), ())


BAD_YAML = {
    "a number twice": ("2: road\n3: car\n2: pavement\n", 3, "'2' is given twice, on line 1 already"),
    "a number twice in other digits": ("2: road\n0x2: pavement\n", 2, "'2' is given twice"),
    "a field twice": ("2: {name: road, name: pavement}\n", 1, "'name' is given twice"),
    "a field misspelt": ("1: road\n2: {name: car, categry: part}\n", 2, "a field 'categry'.*Rename it to 'category'"),
    "an unknown field": (
        "1: {name: car, color: red}\n",
        1,
        "a field 'color'; there are only name and category. Remove",
    ),
    "name misspelt": ("1: {nam: car}\n", 1, "concept 1: expected a name"),
    "category empty": ("1: road\n2:\n  name: car\n  category:\n", 4, "the category of concept 2 is empty"),
    "category null": ("1: {name: car, category: null}\n", 1, "the category of concept 1 is empty"),
    "category of no letters": ("1: {name: car, category: ' '}\n", 1, "the category of concept 1 is empty"),
    "category a number": ("1: {name: car, category: 3}\n", 1, "the category of concept 1 is 3; expected a text"),
    "category a truth value": ("1: {name: car, category: no}\n", 1, "the category of concept 1 is False"),
    "name empty": ("1: ''\n", 1, "the name of concept 1 is empty"),
    "name a truth value": ("1: no\n", 1, "expected a name.*got False.*needs quotes"),
    "name left out": ("1:\n", 1, "expected a name.*got None"),
    "number negative": ("1: road\n-1: car\n", 2, "number -1 must be between 1 and 65535"),
    "number a fraction": ("1.5: road\n", 1, "expected a number as key, got '1.5'"),
    "number quoted": ("'1': road\n", 1, "expected a number as key, got '1'"),
    "a list": ("1: [road, car]\n", 1, "expected a name"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_a_bad_yaml_table_is_refused_with_its_line(tmp_path, case):
    text, line, message = BAD_YAML[case]
    with pytest.raises(DissectError, match=rf"concepts\.yaml, line {line}: .*{message}"):
        read_concepts(table(tmp_path, text))


BAD_CSV = {
    "a number twice": ("number,name\n2,road\n3,car\n2,pavement\n", 4, "number 2 must be new: it is 'road', too"),
    "a column misspelt": ("number,name,categry\n1,road,object\n", 1, "no column 'categry'; rename it to 'category'"),
    "a column in capitals": ("number,name,Category\n1,road,object\n", 1, "no column 'Category'; rename it to"),
    "name empty": ("number,name\n1,road\n2,\n", 3, "the name of concept 2 is empty"),
    "number zero": ("number,name\n1,road\n0,car\n", 3, "number 0 means unlabelled.*`offset: 1`"),
    "number a fraction": ("number,name\n1.5,road\n", 2, "column 'number': expected a whole number, got '1.5'"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_a_bad_csv_table_is_refused_with_its_line(tmp_path, case):
    text, line, message = BAD_CSV[case]
    with pytest.raises(DissectError, match=rf"concepts\.csv, line {line}.*{message}"):
        read_concepts(table(tmp_path, text, "concepts.csv"))


def test_columns_that_are_not_read_are_named(tmp_path):
    path = table(tmp_path, "number,name,red,green\n1,road,128,64\n", "concepts.csv")
    assert read_concepts(path) == ((ROAD,), (f"{path}: columns red, green are not read.",))


def test_an_offset_is_added_to_every_number(tmp_path):
    path = table(tmp_path, "0: road\n1: car\n2: {name: wheel, category: part}\n")
    assert read_concepts(path, offset=1) == ((ROAD, CAR, WHEEL), ())
    with pytest.raises(
        DissectError, match=r"line 1: number 65535 must be between 1 and 65535, with the offset 1 added"
    ):
        read_concepts(table(tmp_path, "65535: road\n"), offset=1)
    with pytest.raises(DissectError, match=re.escape("number -1 must be")):
        read_concepts(table(tmp_path, "-1: road\n"), offset=1)


def test_a_merged_mapping_is_a_way_to_say_it_once(tmp_path):
    text = "3: &part {name: wheel, category: part}\n4: {<<: *part, name: door}\n"
    assert read_concepts(table(tmp_path, text))[0] == (WHEEL, Concept(4, "door", "part"))
