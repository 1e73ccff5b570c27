"""Recipes with odd but well-formed fields: planned and run to the end, or refused; never a traceback, never a hang."""

import contextlib
import io
from pathlib import Path

import pytest
import stores
from hypothesis import example, given
from hypothesis import strategies as st
from test_fuzz import NAMES, labelled_folder, share, write

pytest.importorskip("torch")

import runs

from dissect_xr.plot import figures

pytestmark = pytest.mark.slow

WIDTHS = [
    "{}",
    "{width: 1}",
    "{width: 0}",
    "{width: -1}",
    "{width: 1000000}",
    "{width: x}",
    "{wide: 3}",
    "{width: 1.5}",
]
MODELS = ["${here}/network.py:Small", "${here}/network.py:nothing", "${here}/network.py", "torch.nn:Identity",
          "torch.nn:ReLU", "torch.nn:Linear", "builtins:print", "json:loads", "numpy:zeros"]  # fmt: skip
METRICS = ["{a: 1.0}", "{a: .nan}", "{'': 1}", "{unit: 2}", "{step: 3}", "{iou: 1}", "{channel: 1}", "{image: 1}"]
SIDES = ["1", "2", "3", "5", "24", "[3, 9]", "[300, 2]", "[1, 1000000]", "100000", "0"]
NUMBERS = ["1", "2", "7", "1000000", "1000000000000", "0", "-1"]

ODD = {
    "activations.batch": NUMBERS,
    "activations.memory": ["1048576", "1048577", "1000000000000"],
    "activations.budget": NUMBERS,
    "activations.dtype": ["float16", "float32"],
    "activations.device": ["cpu", "cuda", "cuda:7", "meta", "mps", "x"],
    "activations.threads": ["1", "2", "1000000000"],
    "activations.allow_nondeterministic": ["true", "false"],
    "probe.label_size": ["1", "[1, 9]", "1000", "1000000", "[0, 1]"],
    "probe.images.limit": ["1", "2", "9", "0"],
    "probe.images.split": ["train", "[train]", "x", "[]"],
    "probe.categories": ["[object]", "[part, object]", "[]", "[object, object]", "[x]"],
    "probe.colors": ["true", "false"],
    "model.input_size": SIDES,
    "model.factory": MODELS,
    "model.kwargs": WIDTHS,
    "model.preprocess.scale": ["0", "1e-300", "1e300", ".inf", ".nan", "-1"],
    "model.preprocess.mean": ["[1e30, 1, 1]", "[.nan, 0, 0]", "[1, 2]"],
    "model.preprocess.std": ["[0, 1, 1]", "[1e-40, 1, 1]"],
    "model.preprocess.resize": ["1", "24", "25", "100", "100000", "1000000000"],
    "model.preprocess.callable": ["builtins:print", "builtins:len", "torch:from_numpy", "torch:zeros", "x:y", "x"],
    "model.preprocess.channels": ["BGR"],
    "model.snapshots.0.seed": ["-1", "18446744073709551616", "9223372036854775807"],
    "model.snapshots.0.step": ["-5", "5", "1000000000000000000000"],
    "model.snapshots.0.weights": ["x", "${here}/recipe.yaml", "/dev/null", "${here}"],
    "model.snapshots.0.name": ["second", "a b", "a/b", ".", "__x", "é", "'[red]'", "a" * 300, "done", "blocks", "''"],
    "model.snapshots.0.key": ["x", "''", "state_dict.model"],
    "model.snapshots.0.metrics": METRICS,
    "model.metrics.file": ["${here}/recipe.yaml", "x", "/dev/null", "${here}"],
    "layers": ["all", "[first, first]", "['*']", "[]", "[second, first]", "[head]", "['first.0']", "['**']", "['[']"],
    "skip_bad_images": ["true"],
    "activations.keep": ["none", "tail"],
    "dissect.fractions": ["[0.1]", "[0.5, 0.5]", "[1.0e-12]", "[0.999999]", "[]", "[0]", "[1]", "[.nan]", "[1.0e-320]"],
    "dissect.anchoring": ["half_pixel"],
    "dissect.domain": ["touched", "all"],
}
"""Field -> values that a recipe's types allow, or nearly."""

CHANGES = st.lists(
    st.one_of([st.tuples(st.just(field), st.sampled_from(values)) for field, values in ODD.items()]),
    max_size=3,
    unique_by=lambda change: change[0],
)


def prepared(folder: Path, changes: list[tuple[str, str]]) -> list[str]:
    """Arguments of a run over three tiny images in `folder`."""
    (folder / "data" / "images").mkdir(parents=True)
    labelled_folder(folder / "data" / "images")
    rows = [[f"image_{name}", "train", "4", "4", "4", "4", name, "2"] for name in NAMES]
    write(folder / "data" / "index.csv", [["image", "split", "ih", "iw", "sh", "sw", "object", "part"], *rows])
    write(
        folder / "data" / "label.csv", [["number", "name", "category"], ["1", "sky", "object"], ["2", "wing", "part"]]
    )
    write(folder / "data" / "category.csv", [["name"], ["object"], ["part"]])
    sets = [f"data={folder / 'data'}", *(f"{field}={value}" for field, value in changes)]
    options = [word for one in sets for word in ("--set", one)]
    return [str(runs.write_recipe(folder)), *options, "--out", str(folder / "out"), "--quiet"]


def said(*words: str) -> tuple[int, str]:
    """Exit code of a command, and its errors."""
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        code = runs.call(*words)
    return code, errors.getvalue()


@share(0.1)
@given(CHANGES)
@example([("model.snapshots.0.seed", "18446744073709551616")])
@example([("model.input_size", "100000")])
@example([("activations.threads", "1000000000")])
@example([("model.factory", "torch.nn:ReLU"), ("model.kwargs", "{}"), ("activations.device", "cuda")])
def test_recipes_are_planned_or_refused(changes):
    with stores.scratch() as folder:
        code, errors = said("run", *prepared(folder, changes), "--dry-run")
        assert code in (0, 2), errors
        assert "Traceback" not in errors


@pytest.mark.filterwarnings("default:the report lacks the pictures")  # of runs that keep no activations
@share(0.02, seconds=60)
@given(CHANGES)
@example([("model.snapshots.0.metrics", "{unit: 2}")])
@example([("model.snapshots.0.step", "1000000000000000000000")])
@example([("model.snapshots.0.name", "a" * 300)])
@example([("probe.label_size", "[0, 1]")])
@example([("activations.keep", "none")])
@example([("activations.keep", "tail")])
def test_what_is_planned_runs_and_is_whole(changes):
    with pytest.MonkeyPatch.context() as patched, stores.scratch() as folder:
        patched.setattr(figures, "save_figures", lambda ds, folder: ())
        arguments, out = prepared(folder, changes), str(folder / "out")
        code, errors = said("run", *arguments)
        assert code in (0, 2, 3), errors
        assert "Traceback" not in errors
        if code == 0:
            for command in (["run", *arguments], ["verify", out], ["report", *arguments, "--exemplars", "1"]):
                assert said(*command)[0] == 0, command
