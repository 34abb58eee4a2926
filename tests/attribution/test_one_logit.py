"""A network with one logit z says what the one with the two logits -z and z says, whatever method asks it."""

import dataclasses

import jax
import numpy as np
import pytest
from attribution_cases import close, explain, random_net
from explain_cases import SMALL

from mixaug_jax.attribution import METHODS, iba_statistics
from mixaug_jax.attribution.target import outputs
from mixaug_jax.models import MODELS
from mixaug_jax.scores import SCORES
from mixaug_jax.scores.score import kind_of

LABELS = np.asarray([0, 1])


@pytest.fixture(scope="module")
def pair():
    """The network, its twin with two logits, and two images."""
    one, images = random_net(1)
    params = one.variables["params"]
    turned = jax.tree.map(lambda w: np.concatenate([-w, w], -1), params["fc"])
    variables = {**one.variables, "params": {**params, "fc": turned}}
    two = dataclasses.replace(
        one, model=MODELS["tiny"](2, width=0.5), variables=variables, loss="sigmoid"
    )
    return one, two, images


@pytest.mark.parametrize("output", ["logit", "prob", "loss"])
def test_outputs(pair, output):
    one, two, images = pair
    for label in (0, 1):
        found = outputs(one, images, label, output)
        close(found, np.asarray(outputs(two, images, label, output)), 1e-5)
    if output == "prob":
        close(outputs(one, images, 0, output), 1 - np.asarray(found), 1e-5)
    with pytest.raises(ValueError, match=r"label must be in 0\.\.1; got 2"):
        outputs(one, images, 2, output)


@pytest.mark.parametrize(
    "name", [n for n, method in METHODS.items() if n != "iba_readout" and not method.attention]
)  # the one looks at no logit, and the others at no CNN
def test_methods(pair, name):
    one, two, images = pair
    options = dict(SMALL.get(name, {}))
    if name == "expected_gradients":
        options["baselines"] = np.asarray(images)
    if name == "iba":
        options["stats"] = iba_statistics(two, [np.asarray(images)])
    found = explain(METHODS[name], one, images, LABELS, **options)
    close(found, explain(METHODS[name], two, images, LABELS, **options), 2e-5)


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "alpha_beta", "flat", "epsilon_gamma_box"])
def test_rules_of_relevance(pair, rule):
    one, two, images = pair
    found = explain(METHODS["lrp"], one, images, LABELS, rule=rule)
    close(found, explain(METHODS["lrp"], two, images, LABELS, rule=rule), 2e-5)


def test_curves(pair):
    one, two, images = pair
    heat = np.random.default_rng(0).normal(size=images.shape[:3]).astype(np.float32)
    for name, score in SCORES.items():
        if kind_of(score) != "faithfulness":
            continue
        options = SMALL.get(name, {})
        measure = score.measure or score.f

        def f(net, heat, image, label, measure=measure, options=options):
            return measure(heat, net, image, label, **options)

        both = [jax.jit(jax.vmap(f, (None, 0, 0, 0)))(n, heat, images, LABELS) for n in (one, two)]
        np.testing.assert_allclose(*both, rtol=1e-4, atol=1e-5, err_msg=name)
        if np.ndim(both[0]) == 2 and not score.value:
            assert np.ptp(np.asarray(both[0]), axis=1).min() > 1e-3, name
