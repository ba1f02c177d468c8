from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant.training.randomness import key_hashes, seed_for, shuffled, uniform

KEYS = [f"class {i % 7}/image {i}.jpg" for i in range(3000)]
HASHES = key_hashes(KEYS)
keys = st.lists(st.text(max_size=8), min_size=1, max_size=30, unique=True)


def slow_uniform(key: str, position: int, purpose: str, *numbers: int) -> float:
    """SplitMix64 in Python's own integers."""
    mask = 2**64 - 1

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    base = int.from_bytes(digest, "little") ^ seed_for(purpose, *numbers)
    bits = mix((mix(base) + (position + 1) * 0x9E3779B97F4A7C15) & mask)
    return (bits >> 11) * 2.0**-53


class TestHashes:
    def test_they_are_64_bits_of_the_key_alone(self):
        assert HASHES.dtype == np.uint64
        assert len(np.unique(HASHES)) == len(KEYS)
        np.testing.assert_array_equal(key_hashes(KEYS[5:9]), HASHES[5:9])

    def test_no_keys_no_hashes(self):
        assert key_hashes([]).shape == (0,)

    def test_names_that_no_encoding_fits_have_hashes(self):
        assert len(key_hashes(["\udcff.jpg", "ü.jpg", "日本.png"])) == 3

    def test_they_are_the_same_in_another_process(self):
        program = (
            "from spherequant.training.randomness import key_hashes, uniform\n"
            "print(uniform(key_hashes(['a', 'b']), 2, 'order', 3, 4).tolist())"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        expected = uniform(key_hashes(["a", "b"]), 2, "order", 3, 4).tolist()
        assert done.stdout.strip() == str(expected)


class TestSeeds:
    def test_they_fit_torchs_generator_and_differ(self):
        seeds = [seed_for(p, s, e) for p in ("torch", "order") for s in range(9) for e in range(9)]
        assert len(set(seeds)) == len(seeds)
        assert all(0 <= seed < 2**63 for seed in seeds)

    def test_numbers_do_not_run_together(self):
        assert seed_for("x", 1, 23) != seed_for("x", 12, 3)


class TestUniform:
    @settings(max_examples=30, deadline=None)
    @given(keys, st.integers(0, 2**63), st.integers(0, 1000))
    def test_it_is_the_slow_definition(self, names, seed, epoch):
        fast = uniform(key_hashes(names), 3, "augment", seed, epoch)
        slow = [[slow_uniform(name, j, "augment", seed, epoch) for j in range(3)] for name in names]
        np.testing.assert_array_equal(fast, slow)

    @settings(max_examples=30, deadline=None)
    @given(keys, st.randoms())
    def test_a_keys_numbers_depend_on_no_other_key_and_on_no_order(self, names, random):
        whole = dict(zip(names, uniform(key_hashes(names), 4, "augment", 1, 2), strict=True))
        some = random.sample(names, random.randint(1, len(names)))
        np.testing.assert_array_equal(
            uniform(key_hashes(some), 4, "augment", 1, 2), [whole[name] for name in some]
        )

    def test_fewer_numbers_are_the_first_of_more(self):
        more = uniform(HASHES, 9, "augment", 1)
        np.testing.assert_array_equal(uniform(HASHES, 4, "augment", 1), more[:, :4])

    def test_they_are_uniform(self):
        u = uniform(HASHES, 8, "augment", 0, 0)
        assert u.dtype == np.float64
        assert u.min() >= 0
        assert u.max() < 1
        counts = np.stack([np.histogram(column, 10, (0, 1))[0] for column in u.T])
        chi_squared = ((counts - 300) ** 2 / 300).sum(axis=1)
        assert chi_squared.max() < 27.9  # nine degrees of freedom: one in a thousand is above

    def test_numbers_of_a_key_epochs_and_purposes_are_unrelated(self):
        streams = [
            *uniform(HASHES, 3, "augment", 0, 0).T,
            *uniform(HASHES, 3, "augment", 0, 1).T,
            *uniform(HASHES, 3, "augment", 1, 0).T,
            *uniform(HASHES, 3, "mirror", 0, 0).T,
        ]
        correlations = np.corrcoef(streams) - np.eye(len(streams))
        assert np.abs(correlations).max() < 5 / np.sqrt(len(KEYS))


class TestShuffled:
    def test_it_is_a_permutation(self):
        order = shuffled(HASHES, 0, 0)
        assert order.dtype == np.int64
        np.testing.assert_array_equal(np.sort(order), np.arange(len(KEYS)))

    def test_the_order_of_the_keys_does_not_matter(self):
        listed = np.random.default_rng(0).permutation(len(KEYS))
        first = [KEYS[i] for i in shuffled(HASHES, 3, 4)]
        again = [KEYS[listed[i]] for i in shuffled(HASHES[listed], 3, 4)]
        assert first == again

    @pytest.mark.parametrize("other", [(1, 0), (0, 1)])
    def test_seeds_and_epochs_have_orders_of_their_own(self, other):
        same = shuffled(HASHES, 0, 0) == shuffled(HASHES, *other)
        assert same.sum() < 15  # one is expected
