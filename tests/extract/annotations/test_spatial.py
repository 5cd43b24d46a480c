"""The eight spatial features equal a plain float64 loop and have the documented symmetries."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from extract.annotations.spatial import NUM_GEOMETRIC, SPATIAL_NAMES, spatial_features
from tests.oracles import Box, spatial_oracle

EIGHTHS = st.integers(-800, 3200).map(lambda value: value / 8)
SIDES = st.integers(1, 1600).map(lambda value: value / 8)
BOXES = st.tuples(EIGHTHS, EIGHTHS, SIDES, SIDES)
ROWS = st.lists(st.tuples(BOXES, BOXES, st.integers(0, 30)), min_size=1, max_size=5)
SIZE = (400, 120)


def features(rows: list[tuple[Box, Box, int]], shift_a: float = 0, shift_b: float = 0) -> NDArray[np.floating]:
    a = np.array([row[0] for row in rows]) + np.array([shift_a, 0, 0, 0])
    b = np.array([row[1] for row in rows]) + np.array([shift_b, 0, 0, 0])
    return spatial_features(a, b, np.tile(SIZE, (len(rows), 1)), np.array([row[2] for row in rows]), "yes")


@given(ROWS)
def test_features_equal_the_plain_loop(rows: list[tuple[Box, Box, int]]) -> None:
    expected = np.array([spatial_oracle(a, b, *SIZE, people) for a, b, people in rows])
    actual = features(rows)
    assert actual.dtype == np.float32
    assert actual.shape == (len(rows), 8)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@given(ROWS)
def test_features_are_symmetric_in_a_and_b(rows: list[tuple[Box, Box, int]]) -> None:
    np.testing.assert_array_equal(features(rows), features([(b, a, people) for a, b, people in rows]))


@given(ROWS, st.integers(-400, 800))
def test_features_do_not_change_when_the_panorama_is_rolled(rows: list[tuple[Box, Box, int]], k: int) -> None:
    np.testing.assert_array_equal(features(rows), features(rows, k, k))


@given(ROWS, st.integers(-2, 2), st.integers(-2, 2))
def test_features_do_not_change_when_a_box_moves_by_full_turns(
    rows: list[tuple[Box, Box, int]], turns_a: int, turns_b: int
) -> None:
    np.testing.assert_array_equal(features(rows), features(rows, turns_a * SIZE[0], turns_b * SIZE[0]))


def test_each_pair_uses_the_size_of_its_frame() -> None:
    box_a, box_b = np.array([[0.0, 0, 10, 20]] * 2), np.array([[50.0, 5, 10, 20]] * 2)
    actual = spatial_features(box_a, box_b, np.array([[100, 40], [1000, 80]]), np.array([3, 40]), "yes")
    np.testing.assert_allclose(actual[:, 2], [0.5, 0.05], rtol=1e-6)
    np.testing.assert_allclose(actual[:, 6], [5 / 40, 5 / 80], rtol=1e-6)
    np.testing.assert_allclose(actual[:, 7], [0.3, 1.0], rtol=1e-6)


def test_neighbours_across_the_seam_are_near() -> None:
    rows = [((390.0, 0.0, 10.0, 20.0), (0.0, 0.0, 10.0, 20.0), 2)]
    np.testing.assert_allclose(features(rows)[0, [0, 2]], [0, 10 / 400], atol=1e-7)


def test_no_pairs_give_no_rows() -> None:
    nothing = np.empty((0, 4))
    assert spatial_features(nothing, nothing, np.empty((0, 2), int), np.empty(0, int)).shape == (0, 8)


def test_the_scene_density_is_the_only_feature_that_is_not_geometric() -> None:
    assert SPATIAL_NAMES[NUM_GEOMETRIC:] == ("scene_density",)


def test_r12_distances_in_an_ordinary_image_do_not_wrap() -> None:
    box_a, box_b = np.array([[10.0, 10, 20, 40]] * 2), np.array([[760.0, 10, 20, 40]] * 2)
    size, people = np.array([[800, 600], [800, 200]]), np.array([2, 2])  # a photo and a panorama
    for panorama, distances in (("auto", [750, 50]), ("yes", [50, 50]), ("no", [750, 750])):
        actual = spatial_features(box_a, box_b, size, people, panorama)
        np.testing.assert_allclose(actual[:, 2] * 800, distances, rtol=1e-5)
        np.testing.assert_allclose(actual[:, 0] * 800, np.array(distances) - 20, rtol=1e-5)
        np.testing.assert_allclose(actual[:, 5] * 40, distances, rtol=1e-5)
