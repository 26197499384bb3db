"""The C recursion that an overflow takes away comes back exactly, whatever the fault has interrupted."""

from probe_support import probe


def taken(*steps):
    return probe.recursion_taken(list(steps))


def test_what_was_taken_comes_back():
    if taken() is None:
        return  # this version does not count C recursion
    assert taken("take", "give") == 0
    assert taken("take", -3, "give", 3) == 0
    assert taken("take", "take", "give", "give") == 0
    assert taken(-100, "take", 60, "take", 10, "give", 30) == 0
    assert taken("give") == 0


def test_a_count_in_the_making_that_is_written_over_it():
    if taken() is None:
        return
    for interrupted in (-1, 1):
        assert taken("take", ("overwrite", interrupted), "give", -interrupted) == 0
        assert taken("take", ("overwrite", interrupted), -20, "take", 20, "give", -interrupted) == 0
        assert taken("take", ("overwrite", interrupted), -20, "take", ("overwrite", -21), "give", 21) == 0
