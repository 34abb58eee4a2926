"""What mixing costs: each mixer beside a train step, and the saliency map beside OpenCV's.

    python -m benchmarks.mixing               # all; ResNet-50 at 224 takes minutes on a CPU
    python -m benchmarks.mixing --skip_step   # the mixers and the saliency map only

Everything in a table is measured in turns in one run, and the best turn counts. OpenCV (extra
`bench`) makes one map at a time on one core, as data loaders use it; ours makes a batch on all
cores.

Floors. A mixer reads the batch twice and writes it once: 12 bytes a value, 4.7 MB at 32 pixels
(128 images) and 29 MB at 224 (16 images), about 0.5 ms and 3 ms at 10 GB/s where the caches do not
hold them. The saliency map of an image of side D takes 4 D^3 FLOP for the two products of the
integral image (45 MFLOP at 224, 0.3 ms at 150 GFLOP/s) and about 150 D^2 for gray, blur, scaling and
six windows of 20 operations (8 MFLOP at 224); it stores and reads some 60 bytes a pixel of
intermediate images and of the integral image with its margins, in the cache if a turn is an image.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.timing import interleaved
from mixaug_jax.mixing import MIXERS, fine_grained_saliency
from mixaug_jax.models import MODELS

SETTINGS = {
    "CIFAR size": {"model": "resnet18", "stem": "cifar", "size": 32, "batch": 128, "classes": 10},
    "224": {"model": "resnet50", "stem": "imagenet", "size": 224, "batch": 16, "classes": 1000},
}
# Share of a plain train step that a mixer may take, in percent.
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
    fns = {
        name: functools.partial(jax.jit(mixer), key, images, targets)
        for name, mixer in MIXERS.items()
    }
    if not skip_step:
        fns["train step"] = plain_step(setting, images, targets)
    seconds = interleaved(fns, repeats)
    for name, time in seconds.items():
        line = f"  {name:15s}{1e3 * time:10.3f} ms"
        if not skip_step and name != "train step":
            line += f"{100 * time / seconds['train step']:9.3f} %"
            line += f"  (at most {LIMITS[name]} %)" if name in LIMITS else ""
        print(line)


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
    flags = parser.parse_args()
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print("fine_grained_saliency")
    for setting in SETTINGS.values():
        saliency(setting["size"], setting["batch"], 4 * flags.repeats)
    for name, setting in SETTINGS.items():
        print(f"{name}: {setting['model']}, batch {setting['batch']}, {setting['size']} px")
        mixers(setting, skip_step=flags.skip_step, repeats=flags.repeats)


if __name__ == "__main__":
    main()
