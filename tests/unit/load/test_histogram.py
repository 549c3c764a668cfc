import math

from hypothesis import given
from hypothesis import strategies as st

from milkrun.load.histogram import Histogram

values = st.lists(
    st.one_of(st.integers(0, 1000), st.integers(0, 10**11), st.integers(0, (1 << 53) - 1)),
    min_size=1,
    max_size=300,
)
fractions = st.one_of(st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0]), st.floats(0, 1))


def exact(numbers: list[int], fraction: float) -> int:
    return sorted(numbers)[max(1, math.ceil(fraction * len(numbers))) - 1]


def of(numbers: list[int]) -> Histogram:
    histogram = Histogram()
    for number in numbers:
        histogram.record(number)
    return histogram


@given(values, fractions)
def test_a_quantile_is_within_0_4_percent_of_the_exact_one(numbers, fraction):
    wanted = exact(numbers, fraction)
    assert abs(of(numbers).quantile(fraction) - wanted) <= wanted * 0.004


@given(values)
def test_small_numbers_and_the_ends_are_exact(numbers):
    histogram = of([*numbers, 255])
    assert histogram.lowest == min([*numbers, 255])
    assert histogram.highest == max([*numbers, 255])
    assert of([number % 256 for number in numbers]).quantile(0.5) == exact([n % 256 for n in numbers], 0.5)


@given(values, values, fractions)
def test_merged_histograms_say_what_one_histogram_of_all_would_say(left, right, fraction):
    merged = of(left)
    merged.merge(of(right))
    both = of(left + right)
    assert merged.quantile(fraction) == both.quantile(fraction)
    assert (merged.count, merged.lowest, merged.highest) == (both.count, both.lowest, both.highest)


@given(st.lists(st.integers(-(1 << 70), 1 << 70), max_size=500))
def test_memory_is_bounded_whatever_is_recorded(numbers):
    histogram = of(numbers + [1 << bit for bit in range(70)])
    assert histogram.highest == (1 << 53) - 1
    assert histogram.lowest == 0 or min(numbers, default=1) >= 0


def test_there_are_at_most_6016_buckets():
    histogram = of([(128 + step) << shift for shift in range(80) for step in range(128)])
    histogram.merge(of(list(range(256))))
    assert histogram.buckets == 6016


def test_an_empty_one_says_zero_and_merging_it_changes_nothing():
    assert Histogram().quantile(0.99) == 0
    histogram = of([500])
    histogram.merge(Histogram())
    assert (histogram.lowest, histogram.quantile(0.5), histogram.highest) == (500, 500, 500)
