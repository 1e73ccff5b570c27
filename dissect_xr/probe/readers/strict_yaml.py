"""Reads YAML strictly: a key that is given twice is refused, and every error names the file and the line.

Knows: YAML as PyYAML's safe loader reads it, and the line of every key.
Does not know: what the keys mean.
"""

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from dissect_xr.errors import DissectError

MERGE = "tag:yaml.org,2002:merge"
"""Tag of the key `<<`, which takes over the fields of another mapping: fields of its own may replace them."""

TEXT = "tag:yaml.org,2002:str"

NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

_OCTAL = re.compile(r"[-+]?0[0-7_]+")

_Keys = tuple[Hashable, ...]


@dataclass(frozen=True)
class Document:
    """What a YAML text says, and where each key stands."""

    name: str
    """of the file, for messages"""
    value: Any
    lines: Mapping[_Keys, int]
    """line, counted from 1, of the key or list item that these keys and indices lead to"""

    def where(self, *keys: Hashable) -> str:
        """File and line of the key that these keys and indices lead to, or of the nearest one above it.

        >>> text = "model:\\n  snapshots:\\n  - name: end\\n"
        >>> parse_yaml(text, "recipe.yaml").where("model", "snapshots", 0, "name")
        'recipe.yaml, line 3'
        """
        above = (keys[:n] for n in range(len(keys), 0, -1))
        line = next((self.lines[path] for path in above if path in self.lines), None)
        return self.name if line is None else f"{self.name}, line {line}"


def read_yaml(path: str | Path, expected: str) -> Document:
    """The content of a YAML file in UTF-8; `expected` says in messages what the file should be.

    Raises
    ------
    DissectError
        If the file is missing, is no YAML, or a mapping in it has a key twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DissectError(f"{path}: expected {expected}, found no file.") from error
    except UnicodeDecodeError as error:
        raise DissectError(
            f"{path}: expected {expected}; not readable as YAML, which is text in UTF-8: {error}. Save it as UTF-8."
        ) from error
    except (OSError, ValueError) as error:  # a folder, no permission, a null character in the path
        raise DissectError(f"{path}: expected {expected}, cannot read it: {error}.") from error
    return parse_yaml(text, str(path), expected)


def parse_yaml(text: str, name: str, expected: str = "YAML") -> Document:
    """What a YAML text says; `name` is the text's name in messages, such as its file.

    >>> parse_yaml("2: road\\n3: car\\n2: pavement", "concepts.yaml")
    Traceback (most recent call last):
    dissect_xr.errors.DissectError: concepts.yaml, line 3: '2' is given twice, on line 1 already. Keep one of the two.

    Raises
    ------
    DissectError
        If the text is no YAML, or a mapping in it has a key twice.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines = dict(_lines(loader, node, (), name, set())) if node is not None else {}
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"line {mark.line + 1} is " if mark else ""
        raise DissectError(f"{name}: expected {expected}; {at}not readable as YAML: {error.problem}.") from error
    except yaml.YAMLError as error:
        raise DissectError(f"{name}: expected {expected}; not readable as YAML: {error}.") from error
    except RecursionError as error:
        raise DissectError(f"{name}: expected {expected}; not readable as YAML: it is nested too deeply.") from error
    return Document(name, value, lines)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without numbers that few people would write so.

    A text such as 2024-13-45, which looks like a date, is an error with a line, and so is 010, which is 8 to this
    loader and 10 to others. 1:20, to this loader 80 by the sexagesimal numbers of YAML 1.1, is a text.
    """

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        return TEXT if tag in NUMBERS and kind is yaml.ScalarNode and ":" in value else tag

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag == NUMBERS[0] and isinstance(node, yaml.ScalarNode) and _OCTAL.fullmatch(node.value):
            here, elsewhere = (int(node.value.replace("_", ""), base) for base in (8, 10))
            if here != elsewhere:
                problem = f"{node.value} is {here} by YAML 1.1 and {elsewhere} by YAML 1.2: write one of the two"
                raise ConstructorError(None, None, problem, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError, IndexError, OverflowError) as error:
            raise ConstructorError(None, None, f"{node.value!r} is no {node.tag}: {error}", node.start_mark) from error


def _lines(loader: _Loader, node: yaml.Node, above: _Keys, name: str, seen: set[int]) -> Iterator[tuple[_Keys, int]]:
    """(keys that lead to it, line) of every key and list item below a node; raises where a key is given twice.

    A node that aliases make stand in several places is looked at in the first of them.
    """
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*above, index), item.start_mark.line + 1
            yield from _lines(loader, item, (*above, index), name, seen)
        return
    found: dict[Hashable, int] = {}
    for key_node, value in node.value:
        key = "<<" if key_node.tag == MERGE else loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, Hashable):
            raise ConstructorError(None, None, f"{key!r} cannot be a key", key_node.start_mark)
        if key in found:
            raise DissectError(
                f"{name}, line {line}: '{key}' is given twice, on line {found[key]} already. Keep one of the two."
            )
        found[key] = line
        yield (*above, key), line
        yield from _lines(loader, value, (*above, key), name, seen)
