"""Whatever is in a file of weights: a message, or its weights; never a traceback, and never anything executed."""

import argparse
import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import stores
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from test_fuzz import share
from torch import nn

from dissect_xr.activations.checkpoints.files import weights_sha256
from dissect_xr.activations.checkpoints.weights import fit_weights, read_weights
from dissect_xr.errors import DissectError

pytestmark = pytest.mark.slow


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))


STATE = dict(network(7).state_dict())

EXTRAS = {"state_dict": {f"module.{name}": value for name, value in STATE.items()}, "args": argparse.Namespace(lr=0.1)}


def saved(content: object, **options: object) -> bytes:
    data = io.BytesIO()
    torch.save(content, data, **options)
    return data.getvalue()


FORMS = {
    "zip": saved(STATE),
    "zip with extras": saved(EXTRAS),
    "protocol 4": saved(EXTRAS, pickle_protocol=4),
    "legacy": saved(STATE, _use_new_zipfile_serialization=False),
    "legacy with extras": saved(EXTRAS, _use_new_zipfile_serialization=False),
    "safetensors": safetensors.torch.save(STATE),
    "index": json.dumps({"weight_map": dict.fromkeys(STATE, "shard.bin")}).encode(),
    "text": b"<!DOCTYPE html><html><body>Sign in</body></html>",
}

CHECKED = ("zip", "zip with extras", "protocol 4")
"""What carries checksums of its bytes."""


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """(form, content) of a file of weights with some bytes changed, cut or put in."""
    form = draw(st.sampled_from(list(FORMS)))
    content = bytearray(FORMS[form])
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(content) - 1)) if content else 0
        match draw(st.integers(0, 4)):
            case 0:
                del content[place + 1 :]
            case 1:
                content[place:place] = draw(st.binary(min_size=1, max_size=8))
            case 2:
                del content[place : place + draw(st.integers(1, 8))]
            case _ if content:
                content[place] ^= draw(st.integers(1, 255))
    return form, bytes(content)


def loaded(path: Path) -> nn.Module | None:
    """A model with the weights of a file, None if it is refused in the way that users should see."""
    model, refusal = network(1), ""
    try:
        fit_weights(model, read_weights(path))
        weights_sha256(path)
    except DissectError as error:
        refusal = str(error)
    assert not refusal or str(path) in refusal or "shard.bin" in refusal
    assert "weights_only" not in refusal
    return None if refusal else model


def is_right(model: nn.Module) -> bool:
    return all(torch.equal(value, STATE[name]) for name, value in model.state_dict().items())


@share(0.1)
@given(files())
def test_files_of_weights_are_refused_or_read_right(case):
    form, content = case
    with stores.scratch() as folder:
        (folder / "shard.bin").write_bytes(FORMS["zip"])
        (folder / "weights.pth").write_bytes(content)
        model = loaded(folder / "weights.pth")
        if content == FORMS[form] and form != "text":
            assert model is not None
        if model is not None and (form in CHECKED or content == FORMS[form]):
            assert is_right(model), "a changed byte was read as a weight"


# --- pickles of any kind ---

TOUCH = "__import__('pathlib').Path('executed').touch()"

GLOBALS = [
    "os system", "posix system", "builtins eval", "__builtin__ eval", "builtins exec", "builtins getattr", "io open",
    "subprocess Popen", "pathlib Path", "operator attrgetter", "importlib import_module", "torch load",
    "torch.hub load", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict",
    "builtins set",
    "torch.nn.modules.container Sequential", "a.b Config", "numpy.core.multiarray scalar", "torch FloatStorage",
    "nt system", "functools partial", "types FunctionType", "torch.serialization _load", "pickle loads",
]  # fmt: skip

PIECES = st.one_of(
    st.sampled_from(GLOBALS).map(lambda name: "c{}\n{}\n".format(*name.split()).encode()),
    st.sampled_from([TOUCH, "touch executed", "executed", "weight", "0.weight", "__code__", "__defaults__"]).map(
        lambda text: b"X" + len(text).to_bytes(4, "little") + text.encode()
    ),
    st.sampled_from(
        [b"(", b"t", b"R", b"b", b"\x81", b"\x92", b"o", b"}", b"]", b")", b"\x8f", b"N", b"s", b"u", b"a", b"e",
         b"\x90", b"0", b"2", b"1", b"Q", b"\x85", b"\x86", b"\x87", b"q\x01", b"h\x01", b"K\x05", b"\x88", b"\x93",
         b"r\xff\xff\xff\xff", b"j\x01\x00\x00\x00", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x0f", b"G" + bytes(8), b"."]
    ),
    st.binary(max_size=3),
)  # fmt: skip


def archive(pickled: bytes) -> bytes:
    """What torch.save writes, with another pickle in it."""
    data = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(FORMS["zip"])) as old, zipfile.ZipFile(data, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, pickled if entry.filename.endswith("data.pkl") else old.read(entry))
    return data.getvalue()


@share(0.15)
@given(st.lists(PIECES, max_size=14).map(b"".join), st.booleans())
@example(b"cbuiltins\neval\n(X" + len(TOUCH).to_bytes(4, "little") + TOUCH.encode() + b"tR.", True)
@example(b"ca.b\nConfig\n)\x81}b.", True)
@example(b"}r\xff\xff\xff\xff.", True)
def test_pickles_execute_nothing(pickled, in_archive):
    legacy = FORMS["legacy"]
    start = legacy.index(b"ctorch._utils")
    content = archive(b"\x80\x02" + pickled) if in_archive else legacy[:start] + pickled + legacy[start:]
    with stores.scratch() as folder, pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        (folder / "weights.pth").write_bytes(content)
        loaded(folder / "weights.pth")
        assert not (folder / "executed").exists()
        # What was looked up is as it was: the next file is read as ever.
        (folder / "weights.pth").write_bytes(FORMS["zip with extras"])
        model = loaded(folder / "weights.pth")
        assert model is not None
        assert is_right(model)


def test_the_attack_works_where_nothing_guards_against_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(b"\x80\x02cbuiltins\neval\n(X" + len(TOUCH).to_bytes(4, "little") + TOUCH.encode() + b"tR.")
    assert (tmp_path / "executed").exists()
