import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from threadpoolctl import threadpool_limits

from haste.config import GROUPINGS
from haste.errors import ConfigError, DataError
from haste.labels import arrange, clusters
from haste.labels.arrange import greedy_seeding, recursive_bisection
from haste.labels.grouping import cohesion, group_labels, order_labels
from haste.labels.spec import OrderSpec

ARRANGEMENTS = pytest.mark.parametrize("arranged_by", [greedy_seeding, recursive_bisection])
BY_EMBEDDINGS = pytest.mark.parametrize("method", ["semantic", "balanced"])


def unit(rows):
    rows = np.asarray(rows, np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-12)


def planted(n_clusters, size, dimensions=24, noise=0.05, seed=0):
    """Unit vectors around `n_clusters` random directions, shuffled, and the direction of each."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((n_clusters, dimensions)))
    member_of = rng.permutation(np.repeat(np.arange(n_clusters), size))
    rows = centres[member_of] + noise * rng.standard_normal((len(member_of), dimensions))
    return unit(rows), member_of


def angles(*degrees):
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def groups_of(order, group_size):
    return [set(order[i : i + group_size].tolist()) for i in range(0, len(order), group_size)]


# arrangements of one cluster


@ARRANGEMENTS
def test_two_obvious_clusters_are_two_groups(arranged_by):
    vectors = angles(0, 90, 2, 93, 4, 87)
    assert sorted(map(sorted, groups_of(arranged_by(vectors, 3), 3))) == [[0, 2, 4], [1, 3, 5]]


def test_greedy_seeding_by_hand():
    # the mean points to 22 degrees: 22 seeds and takes 20, then 10 seeds and takes 0; 60 is left
    assert greedy_seeding(angles(0, 60, 22, 10, 20), 2).tolist() == [2, 4, 3, 0, 1]


def test_bisection_cuts_where_clusters_end_not_in_the_middle():
    # 2 and 6 labels: halves would cut through the second cluster
    vectors = angles(0, 80, 1, 81, 82, 83, 84, 85)
    order, cut = arrange._best_cut(vectors, vectors[0] - vectors[1], 2)
    assert cut == 2
    assert set(order[:cut].tolist()) == {0, 2}


def test_no_side_of_a_cut_has_less_than_a_quarter_of_the_groups():
    # one outlier among 16 twins: the best cut leaves it with a quarter of the labels
    vectors = angles(*[0] * 15, 90)
    order, cut = arrange._best_cut(vectors, vectors[0] - vectors[15], 1)
    assert cut == 12
    assert 15 in order[cut:].tolist()


@pytest.mark.filterwarnings("error")
@ARRANGEMENTS
@given(
    vectors=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.just(3)),
        elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0]),
    ),
    group_size=st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_arrangements_are_permutations_even_with_twins_and_zeros(arranged_by, vectors, group_size):
    order = arranged_by(unit(vectors), group_size)
    assert sorted(order.tolist()) == list(range(len(vectors)))


# clusters and what they leave over


def test_remainders_join_the_nearest_cluster(monkeypatch):
    """Clusters of 5, 5 and 6 around 0, 40 and 180 degrees, groups of 4: none fits exactly."""
    monkeypatch.setattr(clusters, "GROUPS_PER_CLUSTER", 4 / 3)
    vectors = angles(0, 1, 2, 3, 4, 40, 41, 42, 43, 44, 180, 181, 182, 183, 184, 185)
    order = group_labels("semantic", vectors, np.ones(16), np.arange(16), 4, seed=0)
    near, middle, far = set(range(5)), set(range(5, 10)), set(range(10, 16))
    found = groups_of(order, 4)
    assert [len(group) for group in found] == [4, 4, 4, 4]
    # each cluster fills a group alone; the label left of one neighbour is with the other's
    for cluster in (near, middle, far):
        assert any(group <= cluster for group in found)
    assert sum(len(group & far) == 2 for group in found) == 1


def test_chain_goes_to_the_nearest_cluster_not_yet_visited():
    centroids = angles(0, 100, 10, 60, 25)
    assert list(clusters._chain(centroids, np.array([0, 1, 2, 3, 4]))) == [0, 2, 4, 3, 1]
    assert list(clusters._chain(centroids, np.array([1, 2, 4]))) == [1, 4, 2]


@pytest.mark.parametrize("block", [1000, 65_536])
def test_of_many_centroids_almost_every_label_has_the_nearest(monkeypatch, block):
    monkeypatch.setattr(clusters, "BLOCK", block)
    vectors, _ = planted(40, 64, noise=0.3)
    similarity = vectors @ clusters._kmeans(vectors, np.arange(2560), 100, seed=0)[0].T
    centroids, nearest = clusters._kmeans_of_many(vectors, np.arange(2560), 100, seed=0)
    found = vectors @ centroids.T
    assert np.mean(nearest == found.argmax(axis=1)) > 0.99
    assert found.max(axis=1).mean() > similarity.max(axis=1).mean() - 0.01


@pytest.mark.parametrize("most", [2, 1024])
def test_a_cluster_far_larger_than_the_others_is_clustered_again(monkeypatch, most):
    monkeypatch.setattr(clusters, "MOST_EXACT", most)
    monkeypatch.setattr(clusters, "LARGEST", 2)
    narrow, _ = planted(30, 40, dimensions=8, noise=0.01)
    wide = unit(np.random.default_rng(0).standard_normal((80, 9)))
    vectors = np.concatenate(
        [unit(np.pad(0.01 * narrow, ((0, 0), (0, 1)), constant_values=1)), wide]
    )
    parts = list(clusters._partition(vectors, np.arange(1280), 32, seed=0))
    assert sorted(np.concatenate(parts).tolist()) == list(range(1280))
    assert max(map(len, parts)) <= 2 * 32


class Gathered(np.ndarray):
    """Embeddings that remember the most rows copied at once."""

    most = 0

    def __getitem__(self, key):
        rows = np.asarray(self)[key]
        Gathered.most = max(Gathered.most, len(rows))
        return rows


@pytest.mark.parametrize("kmeans", [clusters._kmeans, clusters._kmeans_of_many])
def test_only_blocks_of_the_embeddings_are_copied(monkeypatch, kmeans):
    monkeypatch.setattr(Gathered, "most", 0)
    monkeypatch.setattr(clusters, "BLOCK", 100)
    monkeypatch.setattr(clusters, "SAMPLE", 5)
    monkeypatch.setattr(clusters, "SAMPLE_OF_MANY", 5)
    vectors, _ = planted(20, 64)
    kmeans(vectors.view(Gathered), np.arange(1280), 20, seed=0)
    assert Gathered.most == 100


@BY_EMBEDDINGS
@pytest.mark.parametrize("most", [2, 1024])
@pytest.mark.parametrize("direction", [[1, 0], [0, 0]])
def test_labels_that_cannot_be_told_apart(monkeypatch, method, most, direction):
    monkeypatch.setattr(clusters, "MOST_EXACT", most)
    monkeypatch.setattr(clusters, "LARGEST", 2)
    vectors = np.tile(np.float32([direction]), (1300, 1))
    order = group_labels(method, vectors, np.ones(1300), np.arange(1300), 4, seed=0)
    assert sorted(order.tolist()) == list(range(1300))


# the groupings


def test_frequency_is_most_frequent_first_ties_by_id():
    frequencies = np.array([5, 1, 3, 3, 1, 9])
    order = group_labels("frequency", None, frequencies, np.array([4, 3, 2, 1, 0]), 2, seed=0)
    assert order.tolist() == [0, 2, 3, 1, 4]


def test_shuffled_ties_are_no_order_of_ids():
    frequencies = np.repeat([1, 2], 300)
    order = group_labels("frequency_shuffled", None, frequencies, np.arange(600), 4, seed=0)
    assert sorted(order[:300]) == list(range(300, 600))
    neighbours = np.abs(np.diff(order[:300]))
    assert neighbours.mean() > 50
    other = group_labels("frequency_shuffled", None, frequencies, np.arange(600), 4, seed=1)
    assert order.tolist() != other.tolist()


def test_random_depends_on_the_seed_alone():
    draw = [group_labels("random", None, np.ones(50), np.arange(50), 4, s) for s in (0, 0, 1)]
    assert draw[0].tolist() == draw[1].tolist() != draw[2].tolist()


@pytest.mark.parametrize("method", GROUPINGS)
@given(
    n_labels=st.integers(1, 90),
    n_tail=st.integers(0, 90),
    group_size=st.sampled_from([1, 2, 5, 16]),
    seed=st.integers(0, 3),
)
@settings(max_examples=30, deadline=None)
def test_every_label_once_whatever_the_order_of_the_tail(
    method, n_labels, n_tail, group_size, seed
):
    rng = np.random.default_rng(seed)
    embeddings = unit(rng.standard_normal((n_labels, 6)))
    frequencies = rng.integers(1, 5, n_labels)
    tail = rng.permutation(n_labels)[:n_tail]
    order = group_labels(method, embeddings, frequencies, tail, group_size, seed)
    assert order.dtype == np.int32
    assert sorted(order.tolist()) == sorted(tail.tolist())
    again = group_labels(method, embeddings, frequencies, np.sort(tail), group_size, seed)
    assert again.tolist() == order.tolist()


@BY_EMBEDDINGS
@pytest.mark.parametrize("most", [2, 1024])
def test_groups_do_not_depend_on_the_number_of_threads(monkeypatch, method, most):
    monkeypatch.setattr(clusters, "MOST_EXACT", most)
    # twins and near twins: rounding alone could swap them
    vectors, _ = planted(60, 40, dimensions=96, noise=1e-7)
    orders = []
    for threads in (1, 4):
        with threadpool_limits(limits=threads):
            orders.append(group_labels(method, vectors, np.ones(2400), np.arange(2400), 16, 3))
    assert orders[0].tolist() == orders[1].tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_clusters_are_found(seed):
    """Clusters of three groups each, in a tail that is half of the labels."""
    vectors, member_of = planted(50, 96, seed=seed)
    tail = np.arange(0, 4800, 2)
    frequencies = np.random.default_rng(seed).integers(1, 6, 4800)
    orders = {m: group_labels(m, vectors, frequencies, tail, 16, seed) for m in GROUPINGS}
    measured = {m: float(cohesion(vectors, order, 16).mean()) for m, order in orders.items()}
    assert min(measured["semantic"], measured["balanced"]) > 0.9
    assert max(measured["frequency"], measured["random"]) < 0.4
    assert measured["balanced"] > measured["semantic"]
    shared = [len(set(member_of[list(g)])) == 1 for g in groups_of(orders["balanced"], 16)]
    assert np.mean(shared) > 0.5


def test_refuses():
    embeddings, ids = np.eye(3, dtype=np.float32), np.arange(3)
    with pytest.raises(
        ConfigError, match="'semantic' needs label embeddings; make them with haste"
    ):
        group_labels("semantic", None, np.ones(3), ids, 2, 0)
    with pytest.raises(DataError, match="embeddings of 3 labels, but the corpus has 4"):
        group_labels("semantic", embeddings, np.ones(4), ids, 2, 0)


# cohesion


def test_cohesion_by_hand():
    # 0 and 90 degrees lie 45 from their mean; 30 and 30 on it; a label alone is its own mean
    vectors = angles(0, 90, 30, 30, 70)
    found = cohesion(vectors, np.array([0, 1, 2, 3, 4]), 2)
    np.testing.assert_allclose(found, [np.sqrt(0.5), 1, 1], atol=1e-6)
    assert found.dtype == np.float32


def test_cohesion_of_no_direction_is_zero():
    vectors = np.array([[1, 0], [-1, 0], [0, 0], [0, 0], [1, 0], [0, 0]], np.float32)
    assert cohesion(vectors, np.arange(6), 2).tolist() == [0, 0, 0.5]
    assert cohesion(vectors, np.empty(0, np.int32), 2).shape == (0,)


@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_cohesion_equals_a_naive_loop(n_tail, group_size, seed):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal((80, 4)))
    order = rng.permutation(80)[:n_tail]
    expected = []
    for start in range(0, n_tail, group_size):
        members = vectors[order[start : start + group_size]].astype(np.float64)
        mean = members.mean(axis=0)
        expected.append(np.mean([e @ mean / np.linalg.norm(mean) for e in members]))
    np.testing.assert_allclose(cohesion(vectors, order, group_size), expected, atol=1e-5)


def test_cohesion_across_blocks(monkeypatch):
    vectors, _ = planted(5, 9)
    order = np.arange(45)[::-1].copy()
    whole = cohesion(vectors, order, 4)
    monkeypatch.setattr("haste.labels.grouping.BLOCK", 2)
    np.testing.assert_array_equal(cohesion(vectors, order, 4), whole)


# head and tail together


def test_order_labels_by_hand():
    spec = OrderSpec("frequency", 0.1, 16, "train", "bag-x-32", 0)
    frequencies = np.arange(40)
    order = order_labels(spec, None, frequencies)
    assert (order.head, order.group_size, order.n_groups, order.cohesion.size) == (16, 16, 2, 0)
    assert order.labels.tolist() == list(range(39, -1, -1))
    measured = order_labels(spec, np.tile(np.float32([[0, 1]]), (40, 1)), frequencies)
    assert measured.cohesion.tolist() == [1, 1]


def test_a_head_that_leaves_no_tail_is_refused_and_one_group_is_said(caplog):
    spec = OrderSpec("frequency", 0.1, 16, "train", "bag-x-32", 0)
    with pytest.raises(ConfigError, match=f"{spec.name}: the head takes all 16 labels"):
        order_labels(spec, None, np.arange(16))
    assert not caplog.records
    assert order_labels(spec, None, np.arange(30)).n_groups == 1
    assert "the tail of 14 labels is one group" in caplog.text
