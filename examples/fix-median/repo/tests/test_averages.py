import pytest

from quickstats import mean, median, mode


def test_mean():
    assert mean([1, 2, 3, 6]) == 3


def test_median_of_an_odd_count():
    assert median([5, 1, 3]) == 3


def test_median_of_an_even_count_is_halfway_between_the_middle_two():
    assert median([4, 1, 3, 2]) == 2.5


def test_median_leaves_its_argument_alone():
    values = [3, 1, 2]
    median(values)
    assert values == [3, 1, 2]


def test_mode_prefers_the_smallest():
    assert mode([2, 1, 2, 1, 3]) == 1


@pytest.mark.parametrize("average", [mean, median, mode])
def test_an_empty_sample_has_no_average(average):
    with pytest.raises(ValueError, match="empty"):
        average([])
