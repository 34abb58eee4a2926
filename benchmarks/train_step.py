"""The plain train step beside PyTorch's: forward, backward, SGD with Nesterov momentum, float32, equal threads.

    python -m benchmarks.train_step [--small]

Both take turns in one run. The best turn of each counts, and of their ratio the median over the turns;
processor seconds are those of all threads. The floating point operations are those of the
convolutions and the dense layer, three times the forward pass. What bounds a step shows in two more
numbers: the speed of one large matrix product, which no convolution exceeds, and the time of the
same step without batch norm, whose passes over memory the operations do not count. Tracing is what
comes before compiling, with nothing kept from before; it holds the ways of all platforms.
"""

import argparse
import collections
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.timing import timeit, turns
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.models import MODELS

# name, stem, batch, side, classes
CASES = (("resnet18", "cifar", 128, 32, 10), ("resnet50", "imagenet", 16, 224, 1000))
SMALL = (("resnet18", "cifar", 8, 16, 10), ("resnet50", "imagenet", 2, 64, 1000))


def plain_affine(name, linear, x, kernel, bias):
    """A conv or dense layer with its batch norm merged away."""
    return linear(x, kernel, bias)


def forward_flops(model, x) -> int:
    """Multiplications and additions of all convolutions and dense layers."""
    flops = []

    def count(name, linear, x, kernel, bias):
        y = linear(x, kernel, bias)
        flops.append(2 * y.size * kernel.size // kernel.shape[-1])
        return y

    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    jax.eval_shape(model.clone(affine=count).apply, variables, x)
    return sum(flops)


def jitted_step(model, optimizer, train=True):
    """f(variables, opt_state, x, y) -> (variables, opt_state, loss); `train=False` uses no batch statistics."""

    def step(variables, opt_state, x, y):
        def loss(params):
            logits, new = model.apply(
                {**variables, "params": params}, x, train, mutable="batch_stats"
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new

        (value, new), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(gradients, opt_state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return {**variables, **new, "params": params}, opt_state, value

    whole, split = devices_lib.REPLICATED, devices_lib.SHARDED
    one = jax.devices()[:1]
    specs = (whole, whole, split, split)
    return devices_lib.pmap(step, specs, whole, donate_argnums=(0, 1), devices=one)


def jax_step(model, x, y, *, train=True):
    """A function that takes one step on the batch and returns the loss."""
    optimizer = optax.sgd(0.01, momentum=0.9, nesterov=True)
    variables = jax.jit(model.init)(jax.random.key(0), x[:1])
    state = [variables, optimizer.init(variables["params"])]
    step = jitted_step(model, optimizer, train)

    def run():
        state[0], state[1], value = step(*state, x, y)
        return state, value

    return run


def tracing_seconds(model, x, y, repeats) -> float:
    """The least time to trace the step."""
    optimizer = optax.sgd(0.01, momentum=0.9, nesterov=True)
    variables = jax.eval_shape(model.init, jax.random.key(0), x[:1])
    opt_state = jax.eval_shape(optimizer.init, variables["params"])
    found = []
    for _ in range(repeats):
        jax.clear_caches()
        began = time.perf_counter()
        jitted_step(model, optimizer).trace(variables, opt_state, x, y)
        found.append(time.perf_counter() - began)
    return min(found)


def torch_resnet(stem, bottleneck, blocks, classes):
    """The same network in PyTorch, under torchvision's names."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs, filters, stride):
            super().__init__()
            outputs = 4 * filters if bottleneck else filters
            # filters, kernel size and stride of each convolution
            row = [(filters, 3, stride), (filters, 3, 1)]
            if bottleneck:
                row = [(filters, 1, 1), (filters, 3, stride), (outputs, 1, 1)]
            self.body, channels = [], inputs
            for i, (width, size, step) in enumerate(row, 1):
                conv = nn.Conv2d(channels, width, size, step, size // 2, bias=False)
                self.body += [(conv, nn.BatchNorm2d(width))]
                self.add_module(f"conv{i}", conv)
                self.add_module(f"bn{i}", self.body[-1][1])
                channels = width
            self.downsample = nn.Sequential()
            if stride != 1 or inputs != outputs:
                conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            y = x
            for conv, norm in self.body[:-1]:
                y = self.relu(norm(conv(y)))
            conv, norm = self.body[-1]
            return self.relu(norm(conv(y)) + self.downsample(x))

    size, stride = (7, 2) if stem == "imagenet" else (3, 1)
    layers = {
        "conv1": nn.Conv2d(3, 64, size, stride, size // 2, bias=False),
        "bn1": nn.BatchNorm2d(64),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity(),
    }
    channels = 64
    for layer, count in enumerate(blocks):
        filters, made = 64 * 2**layer, []
        for i in range(count):
            made.append(Block(channels, filters, 2 if layer and i == 0 else 1))
            channels = filters * (4 if bottleneck else 1)
        layers[f"layer{layer + 1}"] = nn.Sequential(*made)
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(collections.OrderedDict(layers, fc=nn.Linear(channels, classes)))


def torch_step(model, x, y):
    """As `jax_step`, in PyTorch."""
    import torch

    net = torch_resnet(model.stem, model.bottleneck, model.blocks, model.num_classes)
    sgd = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, nesterov=True)
    x, y = torch.tensor(x).permute(0, 3, 1, 2).contiguous(), torch.tensor(y)

    def run():
        sgd.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        sgd.step()
        return loss.item()

    return run


def matmul_speed(side=2048) -> float:
    """GFLOP/s of one large matrix product."""
    a = jnp.ones((side, side))
    product = jax.jit(jnp.matmul)
    return 2 * side**3 / timeit(lambda: product(a, a)) / 1e9


def compare(name, stem, batch, side, classes, repeats):
    """Times one network and prints what was found."""
    model = MODELS[name](classes, stem=stem)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, side, side, 3)).astype(np.float32)
    y = rng.integers(classes, size=batch)
    steps = {
        "ours": jax_step(model, x, y),
        "PyTorch": torch_step(model, x, y),
        "ours without batch norm": jax_step(model.clone(affine=plain_affine), x, y, train=False),
    }
    spent = turns(steps, repeats)
    seconds = {key: min(wall for wall, _ in found) for key, found in spent.items()}
    work = {key: min(cpu for _, cpu in found) for key, found in spent.items()}
    gflop = 3 * forward_flops(model, x) / 1e9
    print(f"\n{name}, {stem} stem, batch {batch}, {side} px: {gflop:.1f} GFLOP a step")
    print(f"  tracing                  {1000 * tracing_seconds(model, x, y, repeats):9.1f} ms")
    for key, value in seconds.items():
        print(
            f"  {key:24} {1000 * value:9.1f} ms  {gflop / value:6.1f} GFLOP/s"
            f"  {work[key]:6.2f} processor seconds"
        )
    ratios = [a / b for (a, _), (b, _) in zip(spent["ours"], spent["PyTorch"], strict=True)]
    print(
        f"  ours / PyTorch           {statistics.median(ratios):9.2f}  (median of {repeats}, "
        f"{min(ratios):.2f} to {max(ratios):.2f}; of processor seconds {work['ours'] / work['PyTorch']:.2f})"
    )
    share = 1 - seconds["ours without batch norm"] / seconds["ours"]
    print(f"  batch norm's share       {100 * share:9.1f} %")


def main():
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="sizes that only show that it runs")
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    print(f"{threads} threads each; jax {jax.__version__}, torch {torch.__version__}")
    print(f"a matrix product: {matmul_speed():.1f} GFLOP/s")
    for case in SMALL if options.small else CASES:
        compare(*case, options.repeats)


if __name__ == "__main__":
    main()
