"""CSV as spreadsheets and programs write it: read where only one meaning is possible, else refused with the reason."""

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stores import scratch

from dissect_xr.errors import DissectError
from dissect_xr.probe.readers.encoding import is_windows_1252
from dissect_xr.probe.readers.tables import read_table

WANTED = [{"number": "1", "name": "sky", "category": "object"}, {"number": "2", "name": "wing", "category": "part"}]


def cells(folder, text, required=("number", "name")):
    """The rows of the table in these bytes or this text."""
    path = folder / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [line.cells for line in read_table(path, required).lines]


SAME = {
    "commas": "number,name,category\n1,sky,object\n2,wing,part\n",
    "semicolons": "number;name;category\n1;sky;object\n2;wing;part\n",
    "tabs": "number\tname\tcategory\n1\tsky\tobject\n2\twing\tpart\n",
    "quoted, with semicolons": '"number";"name";"category"\n"1";"sky";"object"\n"2";"wing";"part"\n',
    "said in the first line": "sep=;\r\nnumber;name;category\r\n1;sky;object\r\n2;wing;part\r\n",
    "spaces after commas": "number, name, category\n1, sky, object\n2, wing, part\n",
    "spaces around commas": "number , name , category \n1 , sky , object\n2 , wing , part \n",
    "a space before a quote": 'number, name, category\n1, "sky", object\n2, "wing", part\n',
    "commas at the ends of all lines": "number,name,category,\n1,sky,object,\n2,wing,part,\n",
    "three commas at the ends of all lines": "number,name,category,,,\n1,sky,object,,,\n2,wing,part,,,\n",
    "commas at the ends of all rows": "number,name,category\n1,sky,object,\n2,wing,part,\n",
    "the numbers of rows": ",number,name,category\n0,1,sky,object\n1,2,wing,part\n",
    "empty lines": "\nnumber,name,category\n\n1,sky,object\n,,\n2,wing,part\n\n",
    "a byte-order mark": "\ufeffnumber,name,category\n1,sky,object\n2,wing,part\n",
    "UTF-16, as Excel calls Unicode text": "number\tname\tcategory\n1\tsky\tobject\n2\twing\tpart\n".encode("utf-16"),
    "no end of the last line": "number,name,category\r\n1,sky,object\r\n2,wing,part",
}


@pytest.mark.parametrize("case", SAME)
def test_dialects_say_the_same(tmp_path, case):
    assert cells(tmp_path, SAME[case]) == WANTED


REFUSED = {
    "a comma in a name": (
        "number,name\n1,door, double door\n2,sky\n",
        r"line 2: expected 2 cells, got 3.*needs quotes",
    ),
    # The cell that is too many may be the end of the name: nobody can say.
    "a comma in the only name": ("number,name,category\n1,door, double door,\n", r"line 2: expected 3 cells, got 4"),
    "a comma at the end of one row": ("number,name\n1,sky,\n2,wing\n", r"line 2: expected 2 cells, got 3"),
    "a cell without a column": ("number,name,\n1,sky,x\n2,wing,\n", r"line 1: column 3 has no name"),
    "a column without a name": ("number,,name\n1,x,sky\n", r"line 1: column 2 has no name"),
    "another delimiter": ("number|name\n1|sky\n", r"line 1: columns number, name are missing; there are number\|name"),
    "delimiters mixed": ("number,name\n1;sky\n", r"line 2: expected 2 cells, got 1"),
    "text behind a quote": ('number,name\n1,"sky"blue\n', r"not readable as CSV"),
    "a backslash before a quote": ('number,name\n1,"the \\"sky\\""\n', r"not readable as CSV"),
    "Russian in its own encoding": ("number,name\n1,дорога\n".encode("cp1251"), r"not in UTF-8.*Save it as UTF-8"),
    "Japanese in its own encoding": ("number,name\n1,道路\n".encode("shift-jis"), r"not in UTF-8.*Save it as UTF-8"),
    "half of a character": ("number,name\n1,straße\n".encode()[:-3] + b"\n", r"not in UTF-8.*Save it as UTF-8"),
    "two columns without names": ("number,name,,\n1,sky,a,b\n", r"column 3 has no name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_mean_two_things_is_refused(tmp_path, case):
    text, message = REFUSED[case]
    with pytest.raises(DissectError, match=rf"t\.csv.*{message}"):
        cells(tmp_path, text)


def test_lines_are_counted_in_the_file(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('sep=;\n\nnumber;name\n1;"sky\nblue"\n\n2;wing\n')
    assert [line.where for line in read_table(path, ["number"]).lines] == [f"{path}, line {n}" for n in (5, 7)]


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("1.0", 1), ("300.00", 300), ("-2.0", -2), ("+7", 7)])
def test_whole_numbers(tmp_path, text, number):
    (tmp_path / "t.csv").write_text(f"number\n{text}\n")
    assert read_table(tmp_path / "t.csv", ["number"]).lines[0].number("number") == number


@pytest.mark.parametrize("text", ["1.5", "1.", "1,0", "1e3", "one", "0x1", "1.0.0", "1 0", "1_0", "\u0661"])
def test_other_numbers_are_refused(tmp_path, text):
    (tmp_path / "t.csv").write_text(f'number\n"{text}"\n')
    with pytest.raises(DissectError, match=r"t\.csv, line 2, column 'number': expected a whole number, got"):
        read_table(tmp_path / "t.csv", ["number"]).lines[0].number("number")


def test_windows_1252_is_read_and_said(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("number;name\n1;Straße\n2;Bäume – hoch\n3;forêt\n".encode("cp1252"))
    found = read_table(path, ["number", "name"])
    assert [line.cells["name"] for line in found.lines] == ["Straße", "Bäume – hoch", "forêt"]
    assert found.notes == (f"{path}: is not in UTF-8, read as Windows-1252. If names look wrong, save it as UTF-8.",)


@pytest.mark.parametrize("encoding", ["cp1251", "cp1253", "cp1255", "koi8-r", "shift-jis", "gbk", "cp437", "mac-roman"])
def test_other_encodings_are_not_taken_for_windows_1252(encoding):
    text = {
        "cp1251": "дорога", "cp1253": "δρόμος", "cp1255": "כביש", "koi8-r": "небо", "shift-jis": "空", "gbk": "天空",
        "cp437": "Bäume", "mac-roman": "Bäume é",
    }[encoding]  # fmt: skip
    assert not is_windows_1252(f"1,{text}".encode(encoding))


CELL = st.text(st.characters(exclude_characters="\x00", codec="utf-8"), max_size=5).filter(lambda t: t == t.strip())


@example(rows=[("1", "0\r0")], delimiter=",", newline="\n")
@given(
    rows=st.lists(st.tuples(st.integers(1, 9).map(str), CELL), min_size=1, max_size=4),
    delimiter=st.sampled_from([",", ";", "\t"]),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_what_the_csv_module_writes_comes_back(rows, delimiter, newline):
    text = io.StringIO(newline="")
    # Python before 3.13 leaves a carriage return without quotes where it is not what ends lines; a reader cannot tell.
    lone = newline == "\n" and any("\r" in name for _, name in rows)
    quoting = csv.QUOTE_ALL if lone else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter=delimiter, lineterminator=newline, quoting=quoting)
    writer.writerows([("number", "name"), *rows])
    with scratch() as folder:
        found = cells(folder, text.getvalue())
    assert [(row["number"], row["name"]) for row in found] == rows
