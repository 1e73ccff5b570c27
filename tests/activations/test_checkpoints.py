"""A file of weights is what its content says, and its weights are found whatever training has put around them."""

import argparse
import datetime
import json
import os
import pickle
import struct
import traceback
import types
import zipfile
from collections import OrderedDict, defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from dissect_xr.activations.checkpoints.files import stamp, weights_sha256
from dissect_xr.activations.checkpoints.inert import _inert
from dissect_xr.activations.checkpoints.names import match
from dissect_xr.activations.checkpoints.weights import fit_weights, read_weights
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording, request_sha256
from dissect_xr.activations.sources import load_model
from dissect_xr.errors import DissectError


class Vgg(nn.Module):
    """Convolutions that AlexNet and VGG train on several GPUs, and a classifier that they do not."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


VGG = f"{__name__}:Vgg"


def state(seed: int = 7) -> dict[str, Tensor]:
    return dict(load_model(ModelSpec.of(VGG, seed=seed)).state_dict())


def loads_as(path: Path, wanted: dict[str, Tensor], key: str | None = None) -> tuple[str, ...]:
    """Load the file into the model of another seed, and compare every tensor; what is said about it."""
    model = load_model(ModelSpec.of(VGG, seed=1))
    said = fit_weights(model, read_weights(path, key=key))
    found = model.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    return said


def refused(path: Path, message: str, key: str | None = None) -> None:
    """Loading fails with an error that names the file; torch's advice is nowhere, not even in a traceback."""
    with pytest.raises(DissectError, match=message) as caught:
        loads_as(path, {}, key)
    assert path.name in str(caught.value)
    assert "weights_only" not in "".join(traceback.format_exception(caught.value))


def renamed(tensors: dict[str, Tensor], *changes: tuple[str, str]) -> dict[str, Tensor]:
    """The same tensors, where names that start with a text start with another."""
    for old, new in changes:
        tensors = {new + name[len(old) :] if name.startswith(old) else name: value for name, value in tensors.items()}
    return tensors


# --- where the state dict lies ---


@pytest.mark.parametrize(
    "key",
    ["state_dict", "model", "model_state_dict", "net", "network", "weights", "params", "module", "generator",
     "ema.module", "teacher", "model.ema.shadow", "checkpoint.model"],
)  # fmt: skip
def test_a_state_dict_is_found_under_any_key(tmp_path, key):
    content: object = state()
    for part in reversed(key.split(".")):
        content = {part: content, "epoch": 3, "best_acc1": torch.tensor(0.5), "lr": [0.1]}
    torch.save(content, tmp_path / "a.pth")
    assert loads_as(tmp_path / "a.pth", state()) == (f"the state dict under '{key}' was taken",)
    loads_as(tmp_path / "a.pth", state(), key=key)


def test_a_state_dict_alone_is_taken_without_a_word(tmp_path):
    torch.save(state(), tmp_path / "a.pt")
    assert loads_as(tmp_path / "a.pt", state()) == ()


def test_the_state_dict_that_fits_is_taken(tmp_path):
    """Of a discriminator and a generator, or of a model and its optimizer."""
    others = {"d": {"0.weight": torch.ones(3)}, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}
    torch.save({"g": state(), **others}, tmp_path / "a.pt")
    assert loads_as(tmp_path / "a.pt", state()) == ("the state dict under 'g' was taken",)


def test_of_two_state_dicts_that_fit_the_recipe_says_which(tmp_path):
    torch.save({"state_dict": state(7), "state_dict_ema": state(8), "args": {"ema": 0.9}}, tmp_path / "a.pt")
    refused(
        tmp_path / "a.pt", r"2 state dicts fit the model and hold different numbers: 'state_dict', 'state_dict_ema'"
    )
    loads_as(tmp_path / "a.pt", state(7), key="state_dict")
    loads_as(tmp_path / "a.pt", state(8), key="state_dict_ema")
    torch.save({"model": state(7), "model_ema": state(7)}, tmp_path / "a.pt")
    loads_as(tmp_path / "a.pt", state(7))


def test_a_key_may_be_the_prefix_of_names(tmp_path):
    both = renamed(state(7), ("", "encoder_q.")) | renamed(state(8), ("", "encoder_k."))
    torch.save({"state_dict": renamed(both, ("", "module.")), "queue": torch.ones(2)}, tmp_path / "a.pt")
    loads_as(tmp_path / "a.pt", state(7), key="state_dict.module.encoder_q")
    loads_as(tmp_path / "a.pt", state(8), key="state_dict.module.encoder_k")
    refused(
        tmp_path / "a.pt", r"8 missing: .*; 18 unexpected: .* the state dict under 'state_dict'; there are those at"
    )
    refused(
        tmp_path / "a.pt", r"below 'module.encoder_q' or 'module.encoder_k' alone would fit: give `key: state_dict.m"
    )
    refused(tmp_path / "a.pt", r"no state dict lies under the key 'state_dict.other'; there is 'state_dict'",
            key="state_dict.other")  # fmt: skip


def test_names_beside_those_that_fit_are_no_reason_to_guess(tmp_path):
    """What to write is said: the key that leaves the loss out."""
    lightning = renamed(state(), ("", "model.")) | {"criterion.weight": torch.ones(2)}
    torch.save({"state_dict": lightning}, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", r"below 'model' alone would fit: give `key: state_dict\.model` beside `weights`")
    loads_as(tmp_path / "a.ckpt", state(), key="state_dict.model")


def test_a_key_is_another_request_and_needs_a_file(tmp_path):
    torch.save({"a": state(7), "b": state(8)}, tmp_path / "a.pt")
    look = Recording(Preprocess((8, 8)))
    specs = [ModelSpec.of(VGG, weights=tmp_path / "a.pt", key=key) for key in ("a", "b", None)]
    assert len({request_sha256(spec, look, "") for spec in specs}) == 3
    assert torch.equal(load_model(specs[1]).classifier.weight, state(8)["classifier.weight"])
    with pytest.raises(DissectError, match="key 'a': says where in a file weights lie"):
        ModelSpec.of(VGG, seed=3, key="a")


# --- names ---


@pytest.mark.parametrize(
    ("changes", "removed"),
    [
        ([("", "module.")], "module."),
        ([("", "model.")], "model."),
        ([("", "_orig_mod.")], "_orig_mod."),
        ([("", "module."), ("", "_orig_mod."), ("", "module."), ("", "net.")], "net. module. _orig_mod. module."),
        ([("features.", "features.module.")], "module."),
        ([("features.", "features.module."), ("", "model._orig_mod.")], "model. module. _orig_mod."),
        ([("features.0.", "features.0._checkpoint_wrapped_module."), ("", "_fsdp_wrapped_module.")],
         "_fsdp_wrapped_module. _checkpoint_wrapped_module."),
        ([("", "backbone.encoder.")], "backbone. encoder."),
    ],
)  # fmt: skip
def test_wrappers_and_prefixes_are_taken_off_and_said(tmp_path, changes, removed):
    torch.save(renamed(state(), *changes), tmp_path / "a.pth.tar")
    assert loads_as(tmp_path / "a.pth.tar", state()) == (f"taken off the names: {removed}",)


def test_a_wrapped_model_takes_the_names_of_a_plain_one():
    wrapped = nn.DataParallel(Vgg())
    torch.manual_seed(3)
    plain = Vgg().state_dict()
    assert match(wrapped.state_dict(), plain).names["features.0.weight"] == "module.features.0.weight"
    assert not match(wrapped.state_dict(), plain).faults


def test_a_module_that_is_called_module_keeps_its_name():
    """Taken off, the names of the two convolutions would be one."""
    own = ["conv.weight", "module.conv.weight"]
    assert match(own, ["net.conv.weight", "net.module.conv.weight"]).names == {
        "net.conv.weight": "conv.weight",
        "net.module.conv.weight": "module.conv.weight",
    }
    assert match(own, ["module.conv.weight"]).missing == ("conv.weight",)


def test_a_number_of_batches_may_be_missing_and_nothing_else():
    assert not match(["0.weight", "1.num_batches_tracked"], ["0.weight"]).faults
    assert match(["0.weight", "1.running_mean"], ["0.weight"]).missing == ("1.running_mean",)
    assert match(["0.weight"], ["0.weight", "1.weight"]).unexpected == ("1.weight",)


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (lambda tensor: tensor.to("meta"), r"1 without values, on the device meta: classifier\.bias\. .*: save the"),
        (lambda tensor: tensor.to_sparse(), r"1 sparse: classifier\.bias\. Save them as `tensor\.to_dense\(\)`"),
    ],
    ids=["meta", "sparse"],
)
def test_tensors_that_cannot_be_copied_are_named(tmp_path, spoilt, message):
    tensors = state()
    odd = tensors | {"classifier.bias": spoilt(tensors["classifier.bias"])}
    torch.save(odd, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", message)
    torch.save({"first": odd, "second": odd}, tmp_path / "b.pt")
    refused(tmp_path / "b.pt", message)
    torch.save({"model": tensors, "other": odd, "queue": spoilt(torch.ones(2))}, tmp_path / "c.pt")
    assert loads_as(tmp_path / "c.pt", tensors) == ("the state dict under 'model' was taken",)


def test_quantised_numbers_are_not_taken_for_weights(tmp_path):
    tensors = state()
    tensors["features.0.weight"] = (tensors["features.0.weight"] * 100).to(torch.int8)
    torch.save(tensors, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", r"1 of another kind of numbers: features\.0\.weight torch\.int8 \(the model has")
    half = {name: value.half() if value.is_floating_point() else value for name, value in state().items()}
    torch.save(half, tmp_path / "a.pt")
    loads_as(tmp_path / "a.pt", {name: half[name].to(value.dtype) for name, value in state().items()})


# --- formats, by content ---


@pytest.mark.parametrize("name", ["a.pt", "a.pth.tar", "a.ckpt", "a.bin", "a.safetensors", "a", "a.zip", "a.h5"])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_suffix_decides_nothing(tmp_path, name, form):
    if form == "safetensors":
        safetensors.torch.save_file(state(), tmp_path / name)
    else:
        torch.save(state(), tmp_path / name, _use_new_zipfile_serialization=form == "zip")
    loads_as(tmp_path / name, state())


def write_shards(folder: Path, suffix: str) -> Path:
    """An index and two shards; the file of the index."""
    names = sorted(state())
    parts = {f"model-0000{n}-of-00002.{suffix}": names[n - 1 :: 2] for n in (1, 2)}
    for file, held in parts.items():
        tensors = {name: state()[name] for name in held}
        if suffix == "bin":
            torch.save(tensors, folder / file)
        else:
            safetensors.torch.save_file(tensors, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / "model.index.json").write_text(json.dumps(index))
    return folder / "model.index.json"


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_an_index_stands_for_its_shards(tmp_path, suffix):
    index = write_shards(tmp_path, suffix)
    assert loads_as(index, state()) == ()
    before, stamped = weights_sha256(index), stamp(index)
    shard = tmp_path / f"model-00002-of-00002.{suffix}"
    shard.write_bytes(shard.read_bytes() + b" ")
    assert weights_sha256(index) != before
    assert stamp(index) != stamped
    shard.unlink()
    refused(index, rf"1 of 2 shards are missing: model-00002-of-00002\.{suffix}")


def test_an_index_leads_nowhere_else(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    index = write_shards(inside, "bin")
    torch.save(state(), tmp_path / "secret.bin")
    for name in ("../secret.bin", str(tmp_path / "secret.bin"), "..", "", "a\0b", 3, ["x"]):
        index.write_text(json.dumps({"weight_map": {"features.0.weight": name}}))
        refused(index, "expected a file in the index's folder")
    index.write_text(json.dumps({"weight_map": {"features.0.weight": index.name}}))
    refused(index, "is an index itself")


def test_a_shard_that_lacks_what_the_index_says_is_named(tmp_path):
    index = write_shards(tmp_path, "safetensors")
    torch.save({"classifier.bias": torch.ones(2)}, tmp_path / "model-00001-of-00002.safetensors")
    refused(index, r"model-00001-of-00002\.safetensors lacks .*which the index says it holds")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 102502400\n"
PICKLED = pickle.dumps({"weight": np.ones(3)}, protocol=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (LFS, "is a pointer of Git LFS and not the file itself. Run `git lfs pull`"),
        (b"/annex/objects/SHA256E-s104--9f.pth\n", "pointer of git-annex"),
        (b"\n<!DOCTYPE html>\n<html><title>Sign in</title></html>", "is an HTML page. The download gave a page"),
        (b"\xef\xbb\xbf<html lang='en'>", "is an HTML page"),
        (
            b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
            "an XML text, such as the error of an object",
        ),
        (b'{"error": "Repository not found"}', "is a text with error, expected weights, or an index"),
        (b"[1, 2]", "is a text, expected weights"),
        (b"{broken", "is a text, expected weights"),
        (PICKLED, "a plain pickle, which torch.save did not write; nothing in it was executed"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
        (b"\x1f\x8b\x08" + bytes(50), "compressed by gzip. Unpack it"),
        (bytes(257) + b"ustar\x0000" + bytes(300), "a tar archive. Unpack it"),
        (b"\x93NUMPY\x01\x00", "a NumPy array"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (bytes(64), "none of the formats that are read .64 bytes that start with"),
        (b"no weights at all", "none of the formats that are read"),
        (b"PK\x03\x04" + bytes(50), "a zip archive, as torch.save writes it, that is damaged or incomplete"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_is_no_file_of_weights_is_called_what_it_is(tmp_path, content, message):
    (tmp_path / "weights.pth").write_bytes(content)
    refused(tmp_path / "weights.pth", message)


def test_programs_are_not_weights(tmp_path):
    model, example = Vgg().eval(), torch.ones(1, 3, 8, 8)
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.trace(model, example), tmp_path / "a.pt")
    refused(
        tmp_path / "a.pt", r"is TorchScript, a program rather than weights.*torch\.jit\.load\(path\)\.state_dict\(\)"
    )
    torch.export.save(torch.export.export(model, (example,)), tmp_path / "b.pt2")
    refused(tmp_path / "b.pt2", r"is a program of torch\.export rather than weights")
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("weight.npy", b"x")
    refused(tmp_path / "c.npz", r"is a zip archive of weight\.npy")


def test_a_place_that_is_no_file_says_what_there_is(tmp_path):
    torch.save(state(), tmp_path / "here.pth")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "link.pth").symlink_to(tmp_path / "gone.pth")
    folder = tmp_path / "absent.pth"
    refused(folder, r"there is no such file; .* holds here\.pth, link\.pth\. Correct the path")
    refused(tmp_path / "link.pth", r"there is no such file, only a link to .*gone\.pth, which does not exist")
    (tmp_path / "model").mkdir()
    refused(tmp_path / "model", "is a folder: expected a file. It holds nothing")
    with pytest.raises(DissectError, match=r"https://a\.b/c\.pth: is a URL\. Download the file"):
        read_weights("https://a.b/c.pth")
    with pytest.raises(DissectError, match="is no regular file"):
        read_weights("/dev/null")
    with pytest.raises(DissectError, match="there is no such file"):
        read_weights("a\0b")


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(state(), tmp_path / "a.pt")
    (tmp_path / "network.py").write_text("from torch import nn\ndef build(): return nn.Conv2d(3, 2, 1)\n")
    assert read_weights("~/a.pt").dicts
    assert weights_sha256("~/a.pt") == weights_sha256(tmp_path / "a.pt")
    assert torch.equal(load_model(ModelSpec.of(VGG, weights="~/a.pt")).classifier.bias, state()["classifier.bias"])
    assert load_model(ModelSpec.of("~/network.py:build")).weight.shape == (2, 3, 1, 1)


def test_a_flipped_byte_is_not_read_as_a_weight(tmp_path):
    """torch.load does not look at the checksums of the archive that it reads."""
    path = tmp_path / "a.pt"
    torch.save(state(), path)
    content = bytearray(path.read_bytes())
    place = content.find(state()["features.0.weight"].numpy().tobytes())
    content[place + 2] ^= 1
    path.write_bytes(content)
    refused(
        path, r"cannot be read \(a/data/\d has another checksum than when it was written\).*download or copy it again"
    )


def test_checksums_that_were_switched_off_are_not_missed(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state(), tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    loads_as(tmp_path / "a.pt", state())


# --- what lies beside the tensors ---


class Config:
    """What a training script keeps: with attributes, and never imported when weights are read."""

    def __init__(self) -> None:
        self.lr = 0.1

    def __setstate__(self, given: object) -> None:
        raise AssertionError("code of the checkpoint was executed")


class Attributes(dict):
    """A dict whose keys are attributes, as many configurations are."""


@pytest.mark.parametrize("form", ["zip", "legacy", "protocol 4"])
def test_harmless_extras_are_passed_over(tmp_path, form):
    extras = {
        "args": argparse.Namespace(lr=0.1, path=Path("x")),
        "best": np.float64(0.5),
        "history": [np.float32(1), np.arange(3)],
        "when": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
        "config": Config(),
        "hyper": Attributes(width=3),
        "callbacks": {Config: {"best": torch.ones(())}, Path("y"): 1},
        "names": frozenset({"a"}),
        "order": OrderedDict(a=1),
    }
    options = {"pickle_protocol": 4} if form == "protocol 4" else {"_use_new_zipfile_serialization": form == "zip"}
    torch.save({"state_dict": renamed(state(), ("", "module.")), **extras}, tmp_path / "a.pth", **options)
    key, names, passed_over = loads_as(tmp_path / "a.pth", state())
    assert (key, names) == ("the state dict under 'state_dict' was taken", "taken off the names: module.")
    assert passed_over.startswith(
        "passed over, without executing anything: argparse.Namespace, pathlib.PosixPath, numpy"
    )


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_builtin_values_and_names_of_functions_are_harmless(tmp_path, protocol):
    extras = {
        "steps": range(3),
        "counts": defaultdict(int, a=1),
        "lists": defaultdict(list),
        "kinds": [str, int, bytes, ValueError, memoryview],
        "error": ValueError("no"),
        "function": len,
        "key": partial(getattr, 1),
        "ellipsis": ...,
        "bytes": bytearray(b"a"),
    }
    torch.save({"state_dict": state(), **extras}, tmp_path / "a.pt", pickle_protocol=protocol)
    assert loads_as(tmp_path / "a.pt", state())[0] == "the state dict under 'state_dict' was taken"


def test_tensors_in_a_dict_of_another_class_are_found(tmp_path):
    torch.save(Attributes(net=Attributes(state())), tmp_path / "a.pt")
    assert loads_as(tmp_path / "a.pt", state())[0] == "the state dict under 'net' was taken"


@pytest.mark.parametrize("form", ["zip", "protocol 4"])
def test_a_whole_model_gives_its_weights_without_being_built(tmp_path, form):
    model = load_model(ModelSpec.of(VGG, seed=7))
    model.features[1].register_buffer("scratch", torch.ones(2), persistent=False)
    model.config = Config()
    options = {"pickle_protocol": 4} if form == "protocol 4" else {}
    torch.save({"epoch": 3, "model": nn.DataParallel(model)}, tmp_path / "a.pt", **options)
    said = loads_as(tmp_path / "a.pt", state())
    assert said[:2] == ("the state dict under 'model' was taken", "taken off the names: module.")


def test_texts_of_python_2_are_read(tmp_path):
    """Names as bytes, and a text that is no UTF-8, as in the published networks of Places365."""
    torch.save(state(), tmp_path / "new.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "new.pt").read_bytes()
    where = content.index(b"X\x11\x00\x00\x00features.0.weight")
    # SHORT_BINSTRING, which Python 3 never writes: a text that is dropped again, and the name.
    old = b"U\x04caf\xe9" + b"0" + b"U\x11features.0.weight"
    (tmp_path / "old.pt").write_bytes(content[:where] + old + content[where + 22 :])
    loads_as(tmp_path / "old.pt", state())


class Calls:
    """Pickles as a call."""

    def __init__(self, function: object, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("call", ["eval", "exec", "getattr", "__import__"])
def test_builtins_that_do_something_are_refused(tmp_path, call):
    import builtins

    marker = tmp_path / "executed"
    attack = Calls(getattr(builtins, call), f"__import__('pathlib').Path({str(marker)!r}).touch()")
    torch.save({"state_dict": state(), "args": attack}, tmp_path / "a.pt")
    refused(
        tmp_path / "a.pt",
        rf"asks to call (__builtin__|builtins)\.{call}, which no weights need; nothing in it was exec",
    )
    assert not marker.exists()


def test_a_function_that_has_a_name_in_the_file_is_not_called_either(tmp_path):
    """It is refused where it is called, whatever was there before."""
    attack = Calls(eval, "1")
    torch.save({"state_dict": state(), "name": eval, "args": attack}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", r"asks to call (__builtin__|builtins)\.eval, which no weights need")
    with pytest.raises(DissectError, match=r"asks to call __builtin__\.apply"):
        _inert("__builtin__", "apply", {})(eval, "1")  # of Python 2
    torch.save({"state_dict": state(), "system": os.system}, tmp_path / "b.pt")
    refused(tmp_path / "b.pt", r"asks for (posix|nt)\.system, which no weights need")


def test_where_torch_must_refuse_extras_so_do_we(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"state_dict": state(), "args": argparse.Namespace()}, tmp_path / "a.pt")
    with pytest.raises(DissectError, match="TORCH_FORCE_WEIGHTS_ONLY_LOAD forbids"):
        read_weights(tmp_path / "a.pt")
    torch.save({"state_dict": state()}, tmp_path / "a.pt")
    loads_as(tmp_path / "a.pt", state())


def test_nothing_is_imported_for_a_checkpoint(tmp_path, monkeypatch):
    """A class of a module that would write a file when it is imported."""
    module = types.ModuleType("of_the_training_script")
    kept = type("Kept", (), {"__module__": module.__name__})
    module.Kept = kept
    monkeypatch.setitem(__import__("sys").modules, module.__name__, module)
    torch.save({"model": state(), "kept": kept()}, tmp_path / "a.pt")
    monkeypatch.delitem(__import__("sys").modules, module.__name__)
    (tmp_path / f"{module.__name__}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    loads_as(tmp_path / "a.pt", state())
    assert not (tmp_path / "executed").exists()


def test_a_safetensors_header_that_is_too_long_is_no_header(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 10**6) + b"{" + bytes(100))
    refused(tmp_path / "a.safetensors", "none of the formats")
