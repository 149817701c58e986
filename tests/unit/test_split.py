"""80:10:10 by patient."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.spine.anatomy import Severity
from lumbar.training.split import Part, split

patients = st.dictionaries(
    st.text("0123456789", min_size=1), st.lists(st.sampled_from(Severity), max_size=25)
)


@given(patients, st.integers(0, 99))
def test_every_patient_has_one_part_and_the_parts_are_80_10_10(severities, seed):
    parts = split(severities, seed)
    assert parts.keys() == severities.keys()
    counts, tenths = Counter(parts.values()), len(severities) / 10
    assert abs(counts[Part.VALIDATION] - tenths) <= 1
    assert abs(counts[Part.TEST] - tenths) <= 1


@given(patients, st.integers(0, 99), st.randoms())
def test_the_order_of_the_patients_does_not_matter_and_the_seed_does(severities, seed, random):
    shuffled = list(severities.items())
    random.shuffle(shuffled)
    assert split(dict(shuffled), seed) == split(severities, seed)


def test_another_seed_is_another_split():
    severities = {str(n): [Severity.NORMAL_MILD] for n in range(100)}
    assert split(severities, 1) != split(severities, 2)


@settings(max_examples=20)
@given(st.integers(0, 99), st.integers(100, 300))
def test_the_parts_are_alike_in_severity(seed, count):
    severities = {
        str(n): [Severity.SEVERE] * (n % 5) + [Severity.NORMAL_MILD] * (25 - n % 5)
        for n in range(count)
    }
    parts = split(severities, seed)

    def severe(part):
        counts = [severities[p].count(Severity.SEVERE) for p in parts if parts[p] is part]
        return sum(counts) / len(counts)

    assert abs(severe(Part.TEST) - severe(Part.TRAIN)) < 0.3
    assert abs(severe(Part.VALIDATION) - severe(Part.TRAIN)) < 0.3
