import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asl_pinn.acquisition.encoding import check_matrix, decode, encode, encoding_matrix
from asl_pinn.errors import InputError

SIZES = [4, 8, 12, 16, 20, 24, 28, 36]
ORDERS = ["hadamard", "walsh"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", SIZES)
def test_columns_are_orthogonal_and_sum_to_zero(size, order):
    matrix = encoding_matrix(size, order)
    assert matrix.shape == (size, size - 1)
    assert np.array_equal(check_matrix(matrix), matrix)
    assert (matrix[0] == 1.0).all()


@pytest.mark.parametrize("size", SIZES)
def test_walsh_columns_are_sorted_by_sign_changes_and_are_those_of_hadamard(size):
    walsh, hadamard = (encoding_matrix(size, order) for order in ("walsh", "hadamard"))
    assert (np.diff(np.count_nonzero(np.diff(walsh, axis=0), axis=0)) >= 0).all()
    assert sorted(map(tuple, walsh.T)) == sorted(map(tuple, hadamard.T))


def test_hadamard_4_is_sylvesters():
    expected = [[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]]
    assert np.array_equal(encoding_matrix(4), expected)


@pytest.mark.parametrize("sign_flip", [False, True])
@given(
    size=st.sampled_from([4, 8, 12]),
    order=st.sampled_from(ORDERS),
    seed=st.integers(0, 2**31),
    control=st.floats(-1e6, 1e6),
)
def test_decoding_undoes_encoding(sign_flip, size, order, seed, control):
    matrix = encoding_matrix(size, order)
    delta_m = np.random.default_rng(seed).normal(size=(3, size - 1))
    played = -matrix if sign_flip else matrix
    decoded = decode(encode(delta_m, control, played), matrix, sign_flip=sign_flip)
    assert np.allclose(decoded, delta_m, rtol=0.0, atol=1e-14 * (abs(control) + 100.0))


@given(st.integers(0, 2**31), st.sampled_from([4, 8, 12]))
def test_decoding_is_linear_and_ignores_the_static_signal(seed, size):
    matrix = encoding_matrix(size)
    a, b = np.random.default_rng(seed).normal(size=(2, 5, size))
    both = decode(2.0 * a - b + 1e3, matrix)
    assert np.allclose(both, 2.0 * decode(a, matrix) - decode(b, matrix), atol=1e-9)


def test_an_image_of_controls_holds_the_static_signal():
    images = encode(np.ones(7), 10.0, encoding_matrix(8))
    assert images[0] == 10.0
    assert images.min() == 10.0 - 4.0


@pytest.mark.parametrize("size", [4, 8, 12])
def test_noise_after_decoding_is_two_sigma_over_root_n(size):
    noise = 3.0 * np.random.default_rng(0).normal(size=(200_000, size))
    decoded = decode(noise, encoding_matrix(size))
    assert decoded.std(axis=0) == pytest.approx(np.full(size - 1, 6.0 / np.sqrt(size)), rel=0.01)
    correlation = np.corrcoef(decoded.T) - np.eye(size - 1)
    assert np.abs(correlation).max() < 0.01


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1, 1], [1, -1]], "shape"),
        ([[1], [0]], r"\+1 \(control\)"),
        ([[1], [1]], "sum to zero"),
        ([[1, 1], [1, 1], [-1, -1]], "sum to zero"),
        ([[1, 1, 1], [1, 1, -1], [-1, -1, 1], [-1, -1, -1]], "orthogonal"),
        ([[1, 1], [1]], "rectangular"),
        ([["a"]], "rectangular"),
    ],
)
def test_matrices_that_cannot_be_decoded_are_refused(matrix, message):
    with pytest.raises(InputError, match=message):
        check_matrix(matrix)


@pytest.mark.parametrize("size", [-4, 0, 2, 6, 10, 52])
def test_sizes_without_a_construction_are_refused(size):
    with pytest.raises(InputError, match="size"):
        encoding_matrix(size)


def test_unknown_orders_are_refused():
    with pytest.raises(InputError, match="unknown matrix order"):
        encoding_matrix(8, "random")
