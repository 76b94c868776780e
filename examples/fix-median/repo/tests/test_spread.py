import pytest

from quickstats import interquartile_range, standard_deviation, variance


def test_variance():
    assert variance([2, 4, 4, 4, 5, 5, 7, 9]) == pytest.approx(32 / 7)


def test_standard_deviation_of_equal_values():
    assert standard_deviation([3, 3, 3]) == 0


def test_interquartile_range_of_an_odd_count():
    assert interquartile_range([1, 2, 3, 4, 5]) == 2


def test_interquartile_range_of_an_even_count():
    assert interquartile_range([1, 2, 3, 4, 5, 6, 7, 8]) == 4


def test_interquartile_range_with_halves_of_even_size():
    assert interquartile_range([1, 2, 4, 8]) == 4.5


def test_variance_needs_two_values():
    with pytest.raises(ValueError, match="two values"):
        variance([1])
