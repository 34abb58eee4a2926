"""What mixing costs: each mixer beside a train step, and the saliency map beside OpenCV's.

    python -m benchmarks.mixing               # all; ResNet-50 at 224 takes minutes on a CPU
    python -m benchmarks.mixing --skip_step   # the mixers and the saliency map only
    python -m benchmarks.mixing --only=labels # PuzzleMix's labels beside gco-wrapper's (extra `bench`)

Everything in a table is measured in turns in one run, and the best turn counts. OpenCV (extra
`bench`) makes one map at a time on one core, as data loaders use it; ours makes a batch on all
cores.

Floors. A mixer reads the batch twice and writes it once: 12 bytes a value, 4.7 MB at 32 pixels
(128 images) and 29 MB at 224 (16 images), about 0.5 ms and 3 ms at 10 GB/s where the caches do not
hold them. The saliency map of an image of side D takes 4 D^3 FLOP for the two products of the
integral image (45 MFLOP at 224, 0.3 ms at 150 GFLOP/s) and about 150 D^2 for gray, blur, scaling and
six windows of 20 operations (8 MFLOP at 224); it stores and reads some 60 bytes a pixel of
intermediate images and of the integral image with its margins, in the cache if a turn is an image.
A mixer that looks at a network has as its floor what it must compute of that network: a forward
pass in evaluation mode, and the gradient of the input where its map is one; beside it stands what
the mixer takes on top. PuzzleMix's labels are compared with the published alpha-beta swap on the
same problems: uneven maps of 16 x 16 blocks, of which none holds so much that its integers overflow.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.timing import interleaved, measured
from mixaug_jax.core import entries
from mixaug_jax.mixing import MIXERS, fine_grained_saliency, maps
from mixaug_jax.mixing.cut import least_labels
from mixaug_jax.mixing.puzzle import puzzle_energy
from mixaug_jax.models import MODELS, Net, Preprocess, layer_maps

SETTINGS = {
    "CIFAR size": {"model": "resnet18", "stem": "cifar", "size": 32, "batch": 128, "classes": 10},
    "224": {"model": "resnet50", "stem": "imagenet", "size": 224, "batch": 16, "classes": 1000},
}
# Share of a plain train step that a mixer may take, in percent.
# The map of each mixer that looks at a network: what it must compute of it.
FLOORS = {"attentivemix": "forward", "snapmix": "forward", "tokenmix": "forward"}
FLOORS["puzzlemix"] = "forward and gradient"
LIMITS = {"cutout": 0.2, "mixup": 0.2, "cutmix": 0.2, "fmix": 0.5, "saliencymix": 2.0}


def plain_step(setting, images, targets):
    """A compiled train step without mixing, as a function without arguments that keeps its
    state."""
    model = MODELS[setting["model"]](setting["classes"], stem=setting["stem"])
    optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state):
        params, batch_stats, moments = state

        def loss(params):
            logits, updates = model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.mean(optax.softmax_cross_entropy(logits, targets)), updates["batch_stats"]

        (_, stats), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), stats, moments

    variables = jax.jit(lambda key: model.init(key, images[:1]))(jax.random.key(0))
    state = [(variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))]

    def run():
        state[0] = step(state[0])
        return state[0]

    return run


def mixers(setting, *, skip_step, repeats):
    """Prints milliseconds of every mixer and, unless `skip_step`, its share of a train step."""
    size, batch = setting["size"], setting["batch"]
    images = jax.random.normal(jax.random.key(0), (batch, size, size, 3))
    targets = jax.nn.one_hot(jnp.arange(batch) % setting["classes"], setting["classes"])
    key = jax.random.key(1)
    net = network(setting)
    fns = {
        "forward": functools.partial(jax.jit(lambda net, x: net.logits(x)), net, images),
        "forward and gradient": functools.partial(jax.jit(maps.gradient), net, images, targets),
    }
    fns |= {name: mixed(mixer, key, images, targets, net) for name, mixer in MIXERS.items()}
    if not skip_step:
        fns["train step"] = plain_step(setting, images, targets)
    seconds = interleaved(fns, repeats)
    for name, time in seconds.items():
        line = f"  {name:15s}{1e3 * time:10.3f} ms"
        if not skip_step and name != "train step":
            line += f"{100 * time / seconds['train step']:9.3f} %"
            line += f"  (at most {LIMITS[name]} %)" if name in LIMITS else ""
        if name in FLOORS:
            floor = seconds[FLOORS[name]]
            line += f"  {FLOORS[name]} and {100 * (time / floor - 1):.1f} % (at most 10 %)"
        print(line)


def network(setting):
    """The network that a mixer of this setting looks at."""
    model = MODELS[setting["model"]](setting["classes"], stem=setting["stem"])
    size = setting["size"]
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))
    return Net(model, variables, Preprocess(size))


def mixed(mixer, key, images, targets, net):
    """A compiled call of a mixer; a network is an argument of it, and what mixes the last map is given one."""
    if "layers" in entries.keywords(mixer):
        shape = (len(images), *list(layer_maps.map_shapes(net, images[0]).values())[-1])
        images = jax.random.normal(jax.random.key(2), shape)
    if "net" not in entries.keywords(mixer):
        return functools.partial(jax.jit(mixer), key, images, targets)
    call = jax.jit(lambda net, *given: mixer(*given, net=net))
    return functools.partial(call, net, key, images, targets)


def labels(count, blocks, repeats):
    """Prints milliseconds of PuzzleMix's labels, the energies beside those of gco-wrapper's swap, and how close they are."""
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(count, 4 * blocks, 4 * blocks, 3)).astype(np.float32)
    uneven = rng.exponential(1, images.shape[:3]).astype(np.float32)
    energy = jax.jit(functools.partial(puzzle_energy, blocks=blocks))
    problem = jax.block_until_ready(energy(images, uneven, rng.permutation(count), np.float32(0.5)))
    solve = jax.jit(least_labels)
    wall, processor = measured({"ours": functools.partial(solve, *problem)}, repeats)["ours"]
    print(
        f"  {count} images, {blocks} x {blocks}: {1e3 * wall:.1f} ms, {1e3 * processor:.1f} ms of processors (at most 30 ms)"
    )
    try:
        from gco import cut_grid_graph
    except ImportError:
        print("  gco-wrapper is not installed: pip install gco-wrapper")
        return
    unary, rows, cols = (np.asarray(x, np.float64) for x in problem)
    ours = np.asarray(solve(*problem))
    t = np.linspace(0, 1, unary.shape[-1])
    pairs = np.square(t[:, None] - t)
    swapped = lambda: [  # noqa: E731
        cut_grid_graph(u, pairs, r, c, n_iter=-1, algorithm="swap").reshape(blocks, blocks)
        for u, r, c in zip(unary, rows, cols, strict=True)
    ]
    wall, _ = measured({"swap": swapped}, repeats)["swap"]
    theirs = np.stack(swapped())
    found = [total_energy(chosen, unary, rows, cols) for chosen in (ours, theirs)]
    less = (found[0] <= found[1] + 1e-6 * np.abs(found[1])).mean()
    gap = ((found[1] - found[0]) / np.abs(found[0])).mean()
    print(
        f"  gco-wrapper's swap: {1e3 * wall:.1f} ms; ours is never above it in {100 * less:.0f} % (at least 95 %)"
    )
    print(f"  its energies are {100 * gap:.3f} % above ours in the mean")


def total_energy(chosen, unary, rows, cols):
    """The energies [B] of labels [B,n,n]."""
    t = chosen / (unary.shape[-1] - 1)
    own = np.take_along_axis(unary, chosen[..., None].astype(int), -1).sum((1, 2, 3))
    across = (rows * np.diff(t, axis=1) ** 2).sum((1, 2))
    return own + across + (cols * np.diff(t, axis=2) ** 2).sum((1, 2))


def saliency(size, batch, repeats):
    """Prints milliseconds an image of the saliency map, ours and OpenCV's, and their ratio."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (batch, size // 8, size // 8, 3)).repeat(8, 1).repeat(8, 2)
    images = np.uint8(np.clip(coarse + rng.integers(-30, 30, coarse.shape), 0, 255))
    ours = functools.partial(jax.jit(fine_grained_saliency), jnp.asarray(images))
    fns = {"ours": ours}
    try:
        import cv2

        detector = cv2.saliency.StaticSaliencyFineGrained_create()
        fns["OpenCV"] = lambda: [detector.computeSaliency(image) for image in images]
    except (ImportError, AttributeError):
        print("  OpenCV's saliency is not installed: pip install opencv-contrib-python-headless")
    seconds = interleaved(fns, repeats)
    line = "".join(f"  {name} {1e3 * t / batch:8.4f} ms/image" for name, t in seconds.items())
    if len(seconds) == 2:
        line += f"  ratio {seconds['ours'] / seconds['OpenCV']:.2f} (at most 1.0, aim 0.33)"
    print(f"  {size:3d} px, batch {batch:3d}:{line}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--skip_step", action="store_true", help="leave the train steps out")
    parser.add_argument("--repeats", type=int, default=5, help="turns, of which the best counts")
    parser.add_argument("--only", choices=("", "labels"), default="", help="one part alone")
    flags = parser.parse_args()
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print("PuzzleMix's labels")
    labels(100, 16, 4 * flags.repeats)
    if flags.only:
        return
    print("fine_grained_saliency")
    for setting in SETTINGS.values():
        saliency(setting["size"], setting["batch"], 4 * flags.repeats)
    for name, setting in SETTINGS.items():
        print(f"{name}: {setting['model']}, batch {setting['batch']}, {setting['size']} px")
        mixers(setting, skip_step=flags.skip_step, repeats=flags.repeats)


if __name__ == "__main__":
    main()
