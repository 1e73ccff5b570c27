"""What a basis turns out to be for a layer, how it is called, and which ones are refused."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dissect_xr.bases import matrices
from dissect_xr.bases.basis import (
    Basis,
    IdentityBasis,
    MatrixBasis,
    PcaBasis,
    RandomBasis,
    Rotation2017Basis,
    RotationBasis,
)
from dissect_xr.errors import DissectError


def test_what_differs_between_bases_differs_in_their_labels() -> None:
    many: list[Basis] = [IdentityBasis(), IdentityBasis(dtype="float32"), IdentityBasis(dtype="float16")]
    kinds = (RotationBasis, Rotation2017Basis)
    many += [kind(alpha, seed) for kind in kinds for alpha in (0, 0.2, 1) for seed in (0, 1)]
    many += [RotationBasis(0.1 + 0.2), RotationBasis(0.3), RandomBasis(0), RandomBasis(1), RandomBasis(0, 7)]
    many += [PcaBasis(), PcaBasis(3), PcaBasis(centred=False), PcaBasis(3, centred=False)]
    many += [MatrixBasis("a.npy"), MatrixBasis("a.npy", name="b"), MatrixBasis("folder/b.c.npy")]
    labels = [basis.label for basis in many]
    assert len(set(labels)) == len(labels)
    assert "rotation-0.30000000000000004-s0" in labels
    assert "rotation-0-s0" in labels
    assert labels[-1] == "matrix-b.c"
    stored = [repr(basis.parameters) for basis in many if not isinstance(basis, MatrixBasis)]
    assert len(set(stored)) == len(stored)


@pytest.mark.parametrize("units", [1, 2, 5, 8])
def test_matrices_are_those_of_their_kinds(units: int) -> None:
    assert np.array_equal(IdentityBasis().linear(units).matrix, np.eye(units))
    turned = RotationBasis(0.4, seed=3).linear(units).matrix
    assert np.array_equal(turned, matrices.power(matrices.planes(matrices.rotation(units, 3)), 0.4))
    assert np.array_equal(RandomBasis(2).linear(units).matrix, matrices.combinations(units, units, 2))
    assert RandomBasis(2, units=11).linear(units).matrix.shape == (11, units)
    assert RandomBasis(2, units=11).rows(units) == 11
    assert (PcaBasis().rows(units), PcaBasis(1).rows(units)) == (units, 1)
    for basis in (IdentityBasis(), RotationBasis(), RandomBasis()):
        assert not basis.linear(units).bias.any()
        assert basis.rows(units) == units


def test_a_matrix_and_its_bias_come_from_files(tmp_path: Path) -> None:
    encoder = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "encoder.npy", encoder.astype(np.float16))
    np.save(tmp_path / "bias.npy", np.ones(4))
    save_file({"w": encoder, "b": np.full(4, 2, np.float32)}, tmp_path / "sae.safetensors")
    save_file({"w": encoder, "turned": encoder.T.copy(), "b": encoder[:, 0]}, tmp_path / "many.safetensors")
    alone = MatrixBasis(str(tmp_path / "encoder.npy"), bias=str(tmp_path / "bias.npy"), relu=True)
    assert alone.rectified
    assert np.array_equal(alone.linear(3).matrix, encoder)
    assert alone.linear(3).bias.tolist() == [1, 1, 1, 1]
    named = MatrixBasis(str(tmp_path / "sae.safetensors"), bias="b")
    assert named.rows(3) == 4
    assert np.array_equal(named.linear(3).matrix, encoder)
    assert named.linear(3).bias.tolist() == [2, 2, 2, 2]
    turned = MatrixBasis(str(tmp_path / "many.safetensors"), tensor="turned", transposed=True)
    assert np.array_equal(turned.linear(3).matrix, encoder)
    assert not turned.linear(3).bias.any()
    was = alone.parameters
    np.save(tmp_path / "bias.npy", np.zeros(4))
    assert alone.parameters != was, "another bias is another basis"
    assert str(tmp_path) not in repr(was)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros((4, 2)), {}, r"expected a matrix of \(any number of rows, 3 units of the layer\), got \(4, 2\)\."),
        (np.zeros((3, 4)), {}, r"It has as many rows: is it transposed \(transposed: true\)\?"),
        (np.zeros((2, 3, 1)), {}, r"expected 2 dims of float16, float32, float64, got \(2, 3, 1\) of float64"),
        (np.zeros((2, 3), np.int64), {}, "got .* of int64"),
        (np.array([[0, 0, np.nan]]), {}, r"nan at \[0, 2\], expected a finite number"),
        (np.array([[0, 1e39, 0]]), {}, r"1e\+39 at \[0, 1\]"),
        (np.zeros((2, 3)), {"bias": "bias.npy"}, "its matrix has 2 rows, the bias .*bias.npy has 4"),
        (np.array([[object()] * 3]), {}, "cannot be read as .npy"),
    ],
)
def test_a_file_that_holds_no_such_matrix_is_refused(
    tmp_path: Path, values: np.ndarray, options: dict[str, str], message: str
) -> None:
    np.save(tmp_path / "m.npy", values)
    np.save(tmp_path / "bias.npy", np.zeros(4))
    basis = MatrixBasis(str(tmp_path / "m.npy"), **{key: str(tmp_path / value) for key, value in options.items()})
    with pytest.raises(DissectError, match=message):
        basis.linear(3)


def test_a_file_that_is_none_or_holds_several_matrices_is_refused(tmp_path: Path) -> None:
    save_file({"one": np.zeros((2, 3)), "two": np.zeros((2, 3))}, tmp_path / "m.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for name, tensor, message in (
        ("m.safetensors", None, "holds 2 arrays of 2 dims among one, two. Name one."),
        ("m.safetensors", "three", "holds no 'three', but one, two."),
        ("broken.safetensors", None, "cannot be read as .safetensors"),
        ("missing.npy", None, "cannot be read as .npy"),
        ("m.pt", None, "expected a matrix as .npy or .safetensors"),
    ):
        with pytest.raises(DissectError, match=message):
            MatrixBasis(str(tmp_path / name), tensor=tensor).linear(3)
    with pytest.raises(DissectError, match=r"missing\.npy: cannot be read"):
        _ = MatrixBasis(str(tmp_path / "missing.npy")).parameters


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RotationBasis(1.5), "alpha 1.5, expected a number from 0 to 1"),
        (lambda: RotationBasis(float("nan")), "alpha nan"),
        (lambda: RotationBasis(seed=-1), "seed -1, expected a whole number"),
        (lambda: RandomBasis(seed=0.5), "seed 0.5"),
        (lambda: RandomBasis(units=0), "0 units"),
        (lambda: PcaBasis(rank=0), "rank 0"),
        (lambda: PcaBasis(rank=4).rows(3), "rank 4, expected at most the layer's 3 units"),
        (lambda: Rotation2017Basis().rows(3), "for an even number of units, got 3"),
        (lambda: IdentityBasis(dtype="int8"), "dtype 'int8', expected one of float16, float32"),
        (lambda: MatrixBasis("a b.npy"), "'a b', expected a name of letters"),
        (lambda: MatrixBasis("a.npy", name="x/y"), "'x/y', expected a name"),
    ],
)
def test_a_basis_that_is_none_is_refused(make: object, message: str) -> None:
    with pytest.raises(DissectError, match=message):
        make()  # type: ignore[operator]
