"""Attribution beside captum's, and a deletion curve beside RISE's: ResNet-50, the same weights and images, equal threads.

    python -m benchmarks.attribution                              # about 15 minutes on two cores
    python -m benchmarks.attribution --only gradcam deletion      # some of the rows
    python -m benchmarks.attribution --small                      # shows that it runs

First the results of both are compared: maps within a share of their largest value. Then they take turns, and the best turn of
each counts. Compiling comes before and has its own line, as has the memory that the compiler reserves beside the weights, with
what the process grew by in the first run.

"CPU" is processor time of all threads (`time.process_time`), which other programs on the machine disturb less than wall time.
PyTorch's threads wait in loops, which counts as processor time: where other programs run, compare with one thread each
(`taskset -c 0 python -m ...`). PyTorch's network lies in memory as it does by default; what its other order gives shows in the
first lines, for the forward pass and the input's gradient alone. Ours are compiled as the stages compile them, with
`devices_lib.compiler_options`.

Floors: an evaluation is 8.2 GFLOP forward, and as many again for its input's gradient; no program is quicker than the speed of
one large matrix product. `floor` is that time over ours.
"""

import argparse
import copy
import dataclasses
import functools
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.dissection import watched
from benchmarks.timing import measured
from benchmarks.train_step import forward_flops, matmul_speed, torch_resnet
from mixaug_jax.attribution import METHODS
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.explain import memory
from mixaug_jax.models import MODELS, Net, Preprocess, mapping
from mixaug_jax.scores import SCORES

AT_ONCE = 16  # evaluations of the network, ours and theirs
CLASSES = 1000
SIGMA = 0.15


@dataclasses.dataclass(frozen=True)
class Size:
    """How much work there is."""

    side: int = 224
    images: int = 4  # of integrated gradients
    steps: int = 50
    samples: int = 16  # of SmoothGrad
    cams: int = 16  # images of Grad-CAM
    stride: int = 8  # of occlusion's window of 16


SMALL = Size(side=64, images=2, steps=4, samples=3, cams=2, stride=16)


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing that both can do.

    Attributes:
      ours: f(net, *arrays), to be jitted.
      arrays: what it takes besides the network.
      theirs: {name: fn}, functions without arguments.
      passes: forward passes of one image, a gradient counting as two.
      held: evaluations that ours holds in memory at once.
      limit: of the largest difference, as a share of the largest value.
    """

    ours: Callable
    arrays: tuple
    theirs: dict[str, Callable]
    passes: int
    held: int
    limit: float


def jit(f):
    return jax.jit(f, compiler_options=devices_lib.compiler_options())


def network(side):
    """ResNet-50 with random weights, its residual branches damped as training damps them; ours and PyTorch's."""
    import torch

    model = MODELS["resnet50"](CLASSES)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, side, side, 3)))

    def damp(path, leaf):
        last = path[-2].key.endswith("bn3") and path[-1].key == "scale"
        return leaf / 4 if last else leaf

    net = Net(model, jax.tree_util.tree_map_with_path(damp, variables), Preprocess(side))
    peer = torch_resnet(model.stem, model.bottleneck, model.blocks, CLASSES)
    arrays = mapping.from_variables(net.variables)
    rest = peer.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()}, strict=False)
    assert not rest.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in rest.missing_keys)
    return net, peer.eval()


def channels_last(maps):
    """torch [n,C,h,w] -> numpy [n,h,w,C]."""
    return maps.detach().permute(0, 2, 3, 1).numpy()


def integrated_gradients(peer, x, tx, labels, size):
    from captum.attr import IntegratedGradients

    x, tx, labels = x[: size.images], tx[: size.images], labels[: size.images]
    chunk = max(AT_ONCE // size.images, 1)

    def ours(net, images, labels):
        def one(net, image, label):
            options = {"steps": size.steps, "chunk": chunk}
            return METHODS["integrated_gradients"](net, image, label, **options)

        return jax.vmap(one, (None, 0, 0))(net, images, labels)

    def captum():
        return channels_last(
            IntegratedGradients(peer).attribute(
                tx,
                target=labels.tolist(),
                n_steps=size.steps,
                internal_batch_size=max(AT_ONCE, size.images),
            )
        )

    passes = 2 * size.images * size.steps
    return Row(ours, (x, labels), {"captum": captum}, passes, chunk * size.images, 5e-3)


def smoothgrad(peer, x, tx, labels, size):
    """One image. The two are compared on the noise that captum draws, and each is timed on its own draws."""
    from captum.attr import NoiseTunnel, Saliency

    x, tx, label = x[0], tx[:1], int(labels[0])
    scale = SIGMA * (x.max() - x.min())

    def captum():
        return channels_last(
            NoiseTunnel(Saliency(peer)).attribute(
                tx,
                nt_samples=size.samples,
                nt_samples_batch_size=min(size.samples, AT_ONCE),
                stdevs=float(scale),
                target=label,
                abs=False,
            )
        )[0]

    def ours(net, image, label):
        options = {"samples": size.samples, "sigma": SIGMA, "chunk": AT_ONCE}
        return METHODS["smoothgrad"](net, image, label, **options)

    # At 224 pixels both are 2.3e-3 from the same in float64, which is what rounding does to a gradient of random weights.
    row = (x, labels[0]), {"captum": captum}, 2 * size.samples, min(size.samples, AT_ONCE), 5e-3
    return Row(ours, *row)


def captums_noise(peer, captum, x):
    """The standard normal noise [n,h,w,C] of one call, and its result."""
    seen = []
    handle = peer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    result = captum()
    handle.remove()
    noisy = np.concatenate([channels_last(s) for s in seen])
    return (noisy - x) / (SIGMA * (x.max() - x.min())), result


def gradcam(peer, x, tx, labels, size):
    from captum.attr import LayerAttribution, LayerGradCam

    x, tx, labels = x[: size.cams], tx[: size.cams], labels[: size.cams]

    def ours(net, images, labels):
        explain = functools.partial(METHODS["gradcam"], layer="layer4")
        return jax.vmap(explain, (None, 0, 0))(net, images, labels)

    def captum():
        maps = LayerGradCam(peer, peer.layer4).attribute(
            tx, target=labels.tolist(), relu_attributions=True
        )
        return channels_last(LayerAttribution.interpolate(maps, (size.side,) * 2, "bilinear"))

    return Row(ours, (x, labels), {"captum": captum}, len(x), len(x), 1e-4)


def occlusion(peer, x, tx, labels, size):
    from captum.attr import Occlusion

    label = int(labels[0])

    def ours(net, image, label):
        return METHODS["occlusion"](net, image, label, window=16, stride=size.stride, chunk=AT_ONCE)

    def captum():
        maps = Occlusion(peer).attribute(
            tx[:1],
            sliding_window_shapes=(3, 16, 16),
            strides=(3, size.stride, size.stride),
            target=label,
            perturbations_per_eval=AT_ONCE,
        )
        return channels_last(maps)[0, ..., :1]

    windows = (-(-(size.side - 16) // size.stride) + 1) ** 2
    return Row(ours, (x[0], labels[0]), {"captum": captum}, windows + 1, AT_ONCE, 1e-3)


def deletion(peer, x, tx, labels, size):
    """A curve of one image with a row's number of pixels a step."""
    heat = np.random.default_rng(1).permutation(size.side**2).reshape((size.side,) * 2)
    heat = heat.astype(np.float32)
    label = int(labels[0])

    def ours(heat, net, image, label):
        return SCORES["deletion"](heat, net, image, label, chunk=AT_ONCE)

    theirs = {
        "RISE, one by one": lambda: rise_deletion(peer, tx[:1], heat, label, size.side, 1),
        "RISE, in batches": lambda: rise_deletion(peer, tx[:1], heat, label, size.side, AT_ONCE),
    }

    def swapped(net, heat, image, label):
        return ours(heat, net, image, label)

    return Row(swapped, (heat, x[0], labels[0]), theirs, size.side + 1, AT_ONCE, 1e-3)


def rise_deletion(peer, image, heat, label, step, batch):
    """Deletion as in the loop that Petsiuk et al. 2018 published, pixels set to 0; `batch` points of the curve at once."""
    import torch

    pixels = heat.size
    order = np.flip(np.argsort(heat.ravel()))
    steps = (pixels + step - 1) // step
    now, states, scores = image.clone(), [], []
    with torch.no_grad():
        for i in range(steps + 1):
            states.append(now.clone() if batch > 1 else now)
            if len(states) == batch or i == steps:
                probs = torch.softmax(peer(torch.cat(states)), 1)
                scores += probs[:, label].tolist()
                states = []
            coords = order[step * i : step * (i + 1)].copy()
            now.reshape(1, 3, pixels)[0, :, coords] = 0
    return np.asarray(scores)


ROWS = {
    "integrated_gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "gradcam": gradcam,
    "occlusion": occlusion,
    "deletion": deletion,
}


def difference(ours, theirs):
    """The largest difference, as a share of their largest value."""
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def check(name, row, net, peer, result):
    """Says how far the two results are apart; stops where that is beyond the row's limit."""
    if name == "smoothgrad":
        noise, expected = captums_noise(peer, row.theirs["captum"], row.arrays[0])
        method = jax.jit(METHODS["smoothgrad"], static_argnames=("sigma", "chunk"))
        found = {"captum": expected}
        result = method(net, *row.arrays, noise=noise, sigma=SIGMA, chunk=AT_ONCE)
    else:
        found = {key: theirs() for key, theirs in row.theirs.items()}
    for key, theirs in found.items():
        apart = difference(result, theirs)
        print(f"  differs from {key} by {apart:.1e} of the largest value (at most {row.limit:.0e})")
        if not apart <= row.limit:
            raise SystemExit(f"{name}: ours and {key}'s results disagree")


def compare(name, row, net, peer, gflop, peak, repeats):
    """Compares, times and prints one row."""
    print(f"\n{name}: {row.passes} forward passes' worth")
    start = time.perf_counter(), time.process_time()
    compiled = jit(row.ours).lower(net, *row.arrays).compile()
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    print(f"  compiling: {seconds[0]:.1f} s wall, {seconds[1]:.1f} s CPU")

    def run():
        return compiled(net, *row.arrays)

    first = []
    grown = watched(lambda: first.append(jax.block_until_ready(run())))[-1]
    check(name, row, net, peer, first[0])
    times = measured({"ours": run, **row.theirs}, repeats)
    for key, (wall, cpu) in times.items():
        ratio = "".join(f" {a / b:6.2f}" for a, b in zip(times["ours"], (wall, cpu), strict=True))
        print(f"  {key:18} {wall:8.2f} s wall {cpu:8.2f} s CPU; ours over it{ratio}")
    floor = row.passes * gflop / peak
    print(f"  floor {floor:.2f} s, {floor / times['ours'][0]:.2f} of ours")
    used = compiled.memory_analysis().temp_size_in_bytes / 2**20
    held = f"{row.held} evaluations at once, {used / row.held:.1f} each"
    print(f"  memory {used:.0f} MiB ({held}); the process grew by {grown / 2**20:.0f} MiB")


def plain_passes(net, peer, x, tx, repeats):
    """Times of the forward pass and of the input's gradient alone, PyTorch's in both of its orders of memory."""
    import torch

    logits = jit(lambda net, x: net.logits(x))
    slope = jit(jax.grad(lambda x, net: net.logits(x)[:, 0].sum()))
    forward, gradient = {"ours": lambda: logits(net, x)}, {"ours": lambda: slope(x, net)}
    for order in (torch.contiguous_format, torch.channels_last):
        other = copy.deepcopy(peer).to(memory_format=order)
        images = tx.clone(memory_format=order).requires_grad_()

        def run(other=other, images=images):
            with torch.no_grad():
                return other(images)

        def pull_back(other=other, images=images):
            return torch.autograd.grad(other(images)[:, 0].sum(), images)

        forward[f"{order}"], gradient[f"{order}"] = run, pull_back
    for name, fns in {"forward": forward, "gradient": gradient}.items():
        print(f"{name} of {len(x)} images:")
        for key, (wall, cpu) in measured(fns, repeats).items():
            print(f"  {key:24} {wall:7.2f} s wall {cpu:7.2f} s CPU")


def main():
    import captum
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="sizes that only show that it runs")
    parser.add_argument("--only", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--repeats", type=int, default=2, help="turns, of which the best counts")
    options = parser.parse_args()
    size = SMALL if options.small else Size()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    versions = f"jax {jax.__version__}, torch {torch.__version__}, captum {captum.__version__}"
    print(f"{threads} threads each; {versions}; load {os.getloadavg()[0]:.1f}")
    net, peer = network(size.side)
    shape = (max(size.images, size.cams), size.side, size.side, 3)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    tx = torch.tensor(x).permute(0, 3, 1, 2).contiguous()
    labels = np.random.default_rng(0).integers(CLASSES, size=len(x)).astype(np.int32)
    gflop, peak = forward_flops(net.model, x[:1]) / 1e9, matmul_speed()
    print(f"a matrix product: {peak:.1f} GFLOP/s; a forward pass: {gflop:.1f} GFLOP")
    bound = memory.evaluation_bytes(net, x.shape[1:]) / 2**20
    print(f"the bound of an evaluation's memory: {bound:.0f} MiB")
    plain_passes(net, peer, x[:AT_ONCE], tx[:AT_ONCE], options.repeats)
    for name in options.only:
        row = ROWS[name](peer, x, tx, labels, size)
        compare(name, row, net, peer, gflop, peak, options.repeats)
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
