# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group scarcity: a NumPy twin, hand cases, explanations, given centroids, and its cost."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import batch, blobs, held, update

import gq_optax as gq
from gq_optax._rarity import lloyd

AXES = np.eye(4, dtype=np.float32)
of_metrics = pytest.mark.parametrize("metric", ["cosine", "euclidean"])


def played(scarcity, *batches):
  """The weights of the last of some batches, given by the kinds in them, and the state."""
  state = scarcity.init(4)
  for kinds in batches:
    weights, state = update(scarcity, batch(*kinds), state)
    assert weights.mean() == pytest.approx(1.0, rel=1e-6)
  return weights, state


def kind_weights(weights, kinds):
  """The weight that every kind got; all its examples must have the same."""
  result = {}
  for kind in sorted(set(kinds)):
    own = weights[np.equal(kinds, kind)]
    np.testing.assert_allclose(own, own[0], rtol=1e-6)
    result[kind] = float(own[0])
  return result


def twin(history, num_groups, length, exponent, max_weight):
  """Weights of the kinds in the last batch of `history`, by the formula, in plain Python."""
  window = history[-length:]
  frequency = {k: np.mean([b.count(k) / len(b) for b in window]) for k in range(num_groups)}
  seen, now = [k for k in frequency if frequency[k] > 0], history[-1]
  scarce = [1 / (len(seen) * max(frequency[k], 0.5 / len(now))) for k in now]
  scarce = np.clip(scarce, 1 / max_weight, max_weight) ** exponent
  return dict(zip(now, held(scarce, max_weight**exponent), strict=True))


@pytest.mark.parametrize(
  ("exponent", "max_weight"), [(0.0, 50.0), (0.5, 50.0), (1.0, 50.0), (1.0, 5.0), (0.5, 5.0)]
)
def test_weights_are_the_formula_over_the_queue(exponent, max_weight):
  scarcity = gq.group_scarcity(4, queue_length=3, exponent=exponent, max_weight=max_weight)
  history = [[0, 0, 0, 1, 2, 3], [0, 0, 0, 0, 0, 1], [0, 1, 1, 2, 2, 2], [0, 0, 0, 0, 3, 2], [1, 1]]
  # What a batch lacks is remembered; what is less than half an example of a batch counts as that.
  history += [[0, 0, 0, 1], [0] * 4, [0] * 4, [0, 0, 0, 1], [0] * 4, [0] * 4, [0] * 23 + [1]]
  state = scarcity.init(4)
  for step, kinds in enumerate(history):
    weights, state = update(scarcity, batch(*kinds), state)
    expected = twin(history[: step + 1], 4, 3, exponent, max_weight)
    assert kind_weights(weights, kinds) == pytest.approx(expected, rel=1e-5)
    counts = [sum(b.count(k) for b in history[max(step - 2, 0) : step + 1]) for k in range(4)]
    assert sorted(state.counts.sum(axis=0).tolist()) == sorted(counts)


def test_a_group_without_anyone_in_the_queue_takes_the_farthest_example_and_no_other_does():
  scarcity, all_kinds, three = gq.group_scarcity(4, queue_length=3), (0, 1, 2, 3), (0, 0, 1, 2)
  _, state = played(scarcity, all_kinds, (0, 0, 1, 2, 4))  # a stranger, but no group is dead
  assert state.ages.tolist() == [1, 1, 1, 1]
  _, state = played(scarcity, all_kinds, three, three, three)
  assert sorted(state.counts.sum(axis=0).tolist()) == [0, 3, 3, 6]
  _, state = played(scarcity, all_kinds, three, three, three, (0, 0, 0, 1, 2, 4))
  assert sorted(state.centroids.tolist()) == sorted(batch(0, 1, 2, 4).tolist())
  assert sorted(state.ages.tolist()) == [0, 4, 4, 4]
  assert sorted(state.counts[(state.index - 1) % 3].tolist()) == [1, 1, 1, 3]
  # With fewer examples than groups the surplus ones take the kinds that come later.
  np.testing.assert_allclose(played(scarcity, (0, 1))[0], 1.0, rtol=1e-6)
  _, state = played(scarcity, (0, 1), (0, 0, 2, 3))
  assert (state.counts.sum(axis=0) > 0).sum() == 4


def test_what_cannot_be_grouped_is_neither_counted_nor_weighted():
  x = np.concatenate([batch(0, 0, 0, 1), [[np.nan] * 4, [0.0] * 4, [np.inf] * 4]])
  scarcity = gq.group_scarcity(4, 3)
  weights, state = update(scarcity, x, scarcity.init(4))
  np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2, 1, 1, 1], rtol=1e-6)
  assert sorted(state.counts[0].tolist()) == [0, 0, 1, 3]
  weights, state = update(scarcity, x, scarcity.init(4), counts=np.arange(7) < 3)
  np.testing.assert_allclose(weights, [1, 1, 1, 0, 0, 0, 0], rtol=1e-6)
  assert state.counts.sum() == 3


def test_pooling_gives_similar_groups_one_frequency():
  # One frequent kind that lies in two close places, and a rare one far away.
  near = np.array([[1.0, 0.0, 0, 0], [1.0, 0.1, 0, 0], [-1.0, 0.0, 0, 0]], np.float32)
  kinds = [0] * 5 + [1] * 4 + [2]
  plain, pooled = gq.group_scarcity(4, 3), gq.group_scarcity(4, 3, pooling=0.5)
  before, after = (
    kind_weights(update(scarcity, near[kinds], scarcity.init(4))[0], kinds)
    for scarcity in (plain, pooled)
  )
  assert before == pytest.approx({0: 2 / 3, 1: 5 / 6, 2: 10 / 3}, rel=1e-5)
  # About two kinds, of nine and of one: weights 10 / 18 and 5.
  assert after == pytest.approx({0: 10 / 18, 1: 10 / 18, 2: 5.0}, rel=2e-2)
  apart = (0, 0, 1, 2, 3)  # nothing is near anything: nothing is pooled
  np.testing.assert_allclose(played(pooled, apart)[0], played(plain, apart)[0], rtol=1e-6)


@of_metrics
def test_explained_groups_name_their_nearest_examples(metric):
  x = np.zeros((6, 4), np.float32)
  x[:, :2] = [[1, 0], [1, 0.2], [1, 0.1], [0, 1], [np.nan, 0], [1, 0.05]]
  scarcity = gq.group_scarcity(2, 3, metric=metric, centroids=AXES[:2])
  _, state = update(scarcity, x, scarcity.init(4))
  explain = jax.jit(scarcity.explain, static_argnames="num_examples")
  groups = jax.device_get(explain(jnp.asarray(x), state, num_examples=3))
  rare, frequent = groups.rarest_first
  assert groups.indices[rare].tolist() == [3, -1, -1]
  assert groups.indices[frequent].tolist()[:1] in ([2], [5])
  assert sorted(groups.sizes.tolist()) == [1, 4]
  assert float(groups.shares[rare]) == pytest.approx(0.2)
  assert groups.weights[rare] > groups.weights[frequent]
  rows, centroid = x[groups.indices[frequent]], np.asarray(state.centroids)[frequent]
  expected = np.sum((rows - centroid) ** 2, axis=1)
  if metric == "cosine":
    expected = 1 - rows @ centroid / np.linalg.norm(rows, axis=1)
  np.testing.assert_allclose(groups.distances[frequent], expected, atol=1e-6)
  assert (np.diff(groups.distances[frequent]) >= 0).all()
  few = jax.eval_shape(lambda: scarcity.explain(jnp.asarray(x[:2]), state, num_examples=4))
  chex.assert_shape(few.indices, (2, 4))


def test_figures_of_group_scarcity():
  kinds = [0] * 16 + [1] * 3 + [2]
  w, state = played(gq.group_scarcity(4, 3), kinds, kinds)
  figures = jax.jit(gq.diagnostics)({"groups": state})
  chex.assert_shape(list(figures.values()), ())
  shares = sorted(float(figures[f"group_share/{k}"]) for k in range(4))
  assert shares == pytest.approx([0, 1 / 20, 3 / 20, 16 / 20])
  assert (figures["groups_seen"], figures["grouped_steps"]) == (3, 2)
  np.testing.assert_allclose(figures["effective_examples"], w.sum() ** 2 / (w**2).sum(), rtol=1e-5)
  np.testing.assert_allclose(figures["rarest_tenth"], np.sort(w)[-2:].sum() / w.sum(), rtol=1e-5)
  ages = sorted(float(figures[f"group_age/{k}"]) for k in range(4))
  assert ages == [1, 1, 1, 2]  # the group that stays empty was never seeded


# Groups that begin where they are told to, in place of a search in the first batch.


@of_metrics
def test_a_step_from_given_centroids_is_a_step_from_those_of_a_state(metric):
  make = lambda centroids: gq.group_scarcity(2, 3, metric=metric, centroids=centroids)
  x, first = blobs(0, rows=48, dim=4, centers=2), make(AXES[:2])
  _, begun = update(first, x[:24], first.init(4))
  given = make(begun.centroids)
  _, expected = update(first, x[24:], begun)
  _, found = update(given, x[24:], given.init(4))
  for _ in range(2):  # the second time from a state that has begun, which goes on from its own
    np.testing.assert_allclose(found.centroids, expected.centroids, rtol=1e-6, atol=1e-6)
    assert found.counts[found.index - 1].tolist() == expected.counts[expected.index - 1].tolist()
    (_, found), (_, expected) = update(given, x[:24], found), update(first, x[:24], expected)
  for size in (1e-30, 1e30):  # of any size
    chex.assert_tree_all_finite(played(make(size * AXES[:2]), (0, 0, 1)))


def test_a_given_group_keeps_its_place_for_a_whole_queue_without_anyone_and_no_longer():
  scarcity, none = gq.group_scarcity(2, queue_length=3, centroids=AXES[:2]), (0, 0, 0)
  for absent in ([(0, 0)], [(0, 0), (0, 0, 3)]):  # a stranger, too, does not take the group
    np.testing.assert_array_equal(played(scarcity, *absent)[1].centroids[1], AXES[1])
  _, state = played(scarcity, *absent, (0, 0, 1))
  assert state.counts[2].tolist() == [2, 1]
  assert state.ages.tolist() == [3, 3]
  np.testing.assert_array_equal(played(scarcity, none, none, none)[1].centroids, AXES[:2])
  _, state = played(scarcity, none, none, none, (0, 0, 0, 3))
  np.testing.assert_array_equal(state.centroids, AXES[[0, 3]])
  assert state.ages.tolist() == [4, 0]
  # Nothing to group does not count as a beginning.
  _, after = update(scarcity, np.full((3, 4), np.nan), scarcity.init(4))
  chex.assert_trees_all_equal(after, scarcity.init(4))
  np.testing.assert_array_equal(update(scarcity, batch(0, 0, 1), after)[1].centroids, AXES[:2])


def test_centroids_may_be_traced():
  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def run(centroids):
    scarcity = gq.group_scarcity(2, centroids=centroids)
    weights, state = scarcity.update(jnp.asarray(batch(0, 0, 1)), scarcity.init(4))
    return jnp.sum(weights * jnp.arange(3.0)), (weights, state)

  (_, (found, _)), slope = run(AXES[:2])
  np.testing.assert_allclose(found, [0.75, 0.75, 1.5], rtol=1e-6)
  np.testing.assert_array_equal(slope, 0.0)
  # What is not finite is found only later: it is zero, so that the state is safe.
  chex.assert_tree_all_finite(run(np.float32([[1, 0, 0, 0], [0, np.nan, 0, 0]])))


def loops(jaxpr):
  """The loops and branches of a program, without those inside of them."""
  for equation in jaxpr.eqns:
    name, inner = equation.primitive.name, equation.params.get("jaxpr")
    if name in ("while", "scan", "cond"):
      yield name
    elif hasattr(inner, "jaxpr"):
      yield from loops(inner.jaxpr)


@pytest.mark.usefixtures("as_on_an_accelerator")
def test_only_the_first_step_pays_for_the_seeding_also_under_vmap(monkeypatch):
  seeded, seed = [], lloyd.seed

  def counting(*args):
    jax.debug.callback(lambda: seeded.append(1))
    return seed(*args)

  monkeypatch.setattr(lloyd, "seed", counting)
  scarcity = gq.group_scarcity(3, queue_length=2)
  x = np.random.default_rng(0).normal(size=(2, 11, 5)).astype("f")  # a shape of no other test
  update, new = jax.jit(jax.vmap(scarcity.update)), scarcity.init(5)
  state = jax.tree.map(lambda leaf: np.stack([leaf] * 2), new)
  # The step has one loop, that around the seeding; all else is a straight line.
  assert list(loops(jax.make_jaxpr(update)(x, state).jaxpr)) == ["while"]
  for _ in range(3):
    _, state = jax.block_until_ready(update(x, state))
    jax.effects_barrier()
    assert len(seeded) == 1
  # One new training among old ones: they go on as they would without it.
  mixed = jax.tree.map(lambda new, old: np.stack([new, old[1]]), new, state)
  np.testing.assert_allclose(update(x, mixed)[0][1], update(x, state)[0][1], rtol=1e-5)


@pytest.mark.usefixtures("as_on_an_accelerator")
def test_an_update_from_given_centroids_has_no_loop():
  """A GPU waits for the host at each."""
  x = np.ones((23, 4), np.float32)  # a shape of no other test
  scarcity = gq.group_scarcity(3, pooling=0.5, centroids=np.eye(3, 4))
  program = jax.make_jaxpr(scarcity.update)(x, scarcity.init(4))
  assert not list(loops(program.jaxpr))
