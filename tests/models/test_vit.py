"""Vision transformers: sizes, positions, stochastic depth, what is refused, and what a file tells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipe
from test_families import state_of
from test_weights import importing, shapes

from mixaug_jax.models import MODELS, Assume, Net, Preprocess, mapping, unsupported, views, weights
from mixaug_jax.models.vit import at_size


# Counted in timm.
@pytest.mark.parametrize(
    ("name", "options", "count", "tensors"),
    [
        ("vit_tiny", {}, 5_717_416, 152),
        ("deit_small", {}, 22_050_664, 152),
        ("vit_base", {}, 86_567_656, 152),
        ("deit_tiny", {"distilled": True}, 5_910_800, 155),
    ],
)
def test_number_of_parameters(name, options, count, tensors):
    leaves = jax.tree.leaves(shapes(name, grid=14, **options))
    assert (sum(leaf.size for leaf in leaves), len(leaves)) == (count, tensors)


def small(**fields):
    model = MODELS["vit_of_size"](3, dim=12, depth=2, heads=2, patch=8).clone(**fields)
    return Net(model, model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))), Preprocess(32))


def test_positions_of_another_size():
    """A constant stays, and so does a slope away from the border; the tokens before them are left alone."""
    rows, cols = np.indices((14, 14))
    square = np.stack([rows, cols, 1 + 0 * rows], -1).reshape(1, 196, 3).astype(np.float32)
    table = np.concatenate([np.full((1, 2, 3), 9, np.float32), square], 1)
    assert at_size(table, 2, 14) is table
    found = np.asarray(at_size(table, 2, 28))
    np.testing.assert_array_equal(found[:, :2], 9)
    found = found[0, 2:].reshape(28, 28, 3)
    np.testing.assert_allclose(found[..., 2], 1, atol=1e-5)
    centers = (np.arange(28) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(found[5:-5, 5:-5, 0], np.tile(centers[5:-5, None], 18), atol=1e-4)


def test_other_images():
    net = small()
    assert net.logits(np.zeros((1, 48, 48, 3), np.float32)).shape == (1, 3)
    for size in ((32, 40), (4, 4)):
        with pytest.raises(ValueError, match="takes square images of 8 pixels or more; got"):
            net.logits(np.zeros((1, *size, 3), np.float32))


def test_stochastic_depth_leaves_out_whole_examples():
    """With a block of its own and a rate of a half the block's output is its input, or twice as far from it."""
    net = small(drop_path_rate=0.5)
    x = net.features(recipe.image(32, 32).repeat(64, 0), "block0")

    def last(train):
        rngs = {"dropout": jax.random.key(1)}
        return net.model.apply(
            net.variables, x, train=train, start="block0", stop="block1", rngs=rngs
        )

    # Images are equal, so that rows differ by what was left out alone: neither, one of both, or both.
    kinds = np.unique(np.asarray(last(True)).round(4), axis=0)
    assert len(kinds) == 4
    assert any(np.allclose(kind, x[0], atol=1e-3) for kind in kinds)
    first = net.model.apply(
        net.variables, recipe.image(32, 32), train=True, stop="block0", rngs={"dropout": jax.random.key(1)}
    )  # fmt: skip
    np.testing.assert_allclose(first, x[:1], atol=1e-5)
    assert len(np.unique(np.asarray(last(False)).round(4), axis=0)) == 1


def test_attention_is_read_and_changed():
    net, x = small(), recipe.image(32, 32)
    logits, found = net.attention(x)
    assert list(found) == ["block0", "block1"]
    assert found["block1"].shape == (1, 2, 17, 17)
    np.testing.assert_allclose(np.asarray(found["block0"]).sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(logits, net.logits(x), rtol=1e-6)
    # Without attention the class token learns nothing of any patch.
    other = np.array(x)
    other[:, :8, :8] += 1
    assert np.abs(net.logits(other) - logits).max() > 1e-3
    first, second = (without_attention(net, image) for image in (x, other))
    np.testing.assert_allclose(first, second, rtol=1e-5)
    assert np.abs(first - logits).max() > 1e-3


def without_attention(net, image):
    """The logits where no token looks at any; a block's attention depends on what the ones before are left."""
    change = {}
    for block in ("block0", "block1"):
        change[block] = -net.attention(image, change=change)[1][block]
    return net.attention(image, change=change)[0]


def test_bfloat16_and_remat():
    net, x = small(), recipe.image(32, 32)
    half = Net(net.model.clone(dtype=jnp.bfloat16, remat=True), net.variables, net.preprocess)
    np.testing.assert_allclose(half.logits(x), net.logits(x), atol=0.05)
    assert half.attention(x)[1]["block0"].dtype == jnp.float32


def test_heads_must_be_told(tmp_path):
    state = state_of("timm vit")
    with pytest.raises(ValueError, match=r"tokens have 48 numbers, .*assume\.heads says it"):
        importing(tmp_path / "net.npz", state)
    with pytest.raises(ValueError, match=r"assume\.heads must divide the 48 numbers"):
        weights.import_weights(tmp_path / "net.npz", assume=Assume(heads=5))
    state["pos_embed"] = state["pos_embed"][:, :-1]
    np.savez(tmp_path / "net.npz", **state)
    with pytest.raises(ValueError, match="positions for 15 patches, which are no square"):
        weights.import_weights(tmp_path / "net.npz", assume=Assume(heads=3))


def test_other_heads_than_a_known_size_has(tmp_path):
    """As the file or the user says it; neither is overruled in silence."""
    model = MODELS["vit_of_size"](3, dim=96, depth=6, heads=6, patch=8, grid=2)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables)
    plain, noted = tmp_path / "net.npz", tmp_path / "net.safetensors"
    np.savez(plain, **mapping.from_variables(variables))
    assert weights.import_weights(plain).model == MODELS["vit_micro"](3, grid=2)
    assert weights.import_weights(plain, assume=Assume(heads=6)).model == model
    weights.export_weights(Net(model, variables, Preprocess(16)), noted)
    assert weights.import_weights(noted).model == model
    with pytest.raises(ValueError, match="its notes contradict what is assumed of heads, 3"):
        weights.import_weights(noted, assume=Assume(heads=3))
    with pytest.raises(ValueError, match=r"assume\.heads must divide the 96 numbers .* got 5"):
        weights.import_weights(plain, assume=Assume(heads=5))


def sized(name, **options):
    """The architecture that a network's names and shapes are found to be."""
    named = mapping.torch_shapes(shapes(name, 7, **options))
    tensors = {k: mapping.Tensor(s, np.dtype("f4"), None) for k, s in named.items()}
    return mapping.identify(mapping.canonical(tensors))


def test_sizes_and_views():
    found = sized("vit_small", grid=24)
    assert (found.name, found.options) == ("vit_small", (("grid", 24),))
    view = views.preset(found)
    assert (view.size, view.resize, view.mean, view.interpolation) == (384, 426, (0.5,) * 3, "bicubic")  # fmt: skip
    found = sized("deit_base", grid=14, distilled=True)
    assert (found.name, found.options) == ("deit_base", (("grid", 14), ("distilled", True)))
    assert views.preset(found) == Preprocess(224, 248, interpolation="bicubic")
    assert views.preset(found, "torchvision") == Preprocess(224, 256)
    found = sized("vit_of_size", dim=128, depth=3, heads=2, patch=32, grid=7)
    expected = {"dim": 128, "depth": 3, "patch": 32, "distilled": False, "heads": 2, "grid": 7}
    assert (found.name, dict(found.options)) == ("vit_of_size", expected)
    assert MODELS["vit_micro"](5).dim == 96


QKV = {
    "blocks.0.attn.qkv.weight": (9, 3),
    "blocks.0.attn.qkv.bias": (9,),
    "blocks.0.mlp.fc1.weight": (12, 3),
    "cls_token": (1, 1, 3),
    "pos_embed": (1, 5, 3),
}


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (QKV, ""),
        (QKV | {"reg_token": (1, 4, 3)}, "with register tokens"),
        (QKV | {"blocks.0.attn.q_norm.weight": (3,)}, "with normalized queries"),
        (QKV | {"blocks.0.ls1.gamma": (3,)}, "with layer scale, as DeiT III, DINOv2 or BEiT"),
        (QKV | {"rope.periods": (3,)}, "with rotary positions"),
        (QKV | {"norm_pre.weight": (3,)}, "with a norm before its blocks, as CLIP's"),
        (QKV | {"fc_norm.weight": (3,)}, "that averages over its patches"),
        ({k: v for k, v in QKV.items() if k != "cls_token"}, "without a class token"),
        ({k: v for k, v in QKV.items() if k != "pos_embed"}, "without a table of positions"),
        ({k: v for k, v in QKV.items() if "bias" not in k}, "without biases in its attention"),
        (QKV | {"heads.pre_logits.weight": (3, 3)}, "with a head of two dense layers"),
        (
            QKV | {"blocks.0.mlp.fc1.weight": (6, 3)},
            "whose hidden layers are 2 times as wide as its tokens, not 4 times",
        ),
        (
            {"vit.encoder.layer.0.attention.attention.query.weight": (3, 3)},
            "under other names than timm's or torchvision's",
        ),
    ],
)
def test_other_transformers_are_named(shapes, said):
    expected = f"vision transformer (ViT) {said}" if said else ""
    assert unsupported.name_of(shapes) == expected
    assert unsupported.name_of({f"module.{k}": v for k, v in shapes.items()}) == expected
