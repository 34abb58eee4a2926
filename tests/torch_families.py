"""Reduced networks of torchvision and timm; run as a script where both are installed, it writes data/torch_families.npz.

Weights follow from the names (`recipe`), so that the file holds for each network only its names and shapes, its logits, and of
the gradient of one of them some values and the largest.
"""

import json
import pathlib

import numpy as np
import recipe
import timm
import torch
import torchvision.models as tv
from timm.models import convnext, resnet, vision_transformer
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.googlenet import BasicConv2d, Inception, InceptionAux

CLASSES, LABEL, PLACES = 5, 1, 48
VIT = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": CLASSES}  # fmt: skip
# Factor of the first 1x1, filters, blocks, stride and size of the depthwise kernel.
EXPANDED = [(1, 8, 1, 1, 3), (6, 12, 2, 2, 3), (6, 16, 1, 2, 5), (6, 24, 1, 1, 3)]


class ResNet(tv.ResNet):
    """torchvision's with a block in each layer and 8 filters in the first."""

    def __init__(self, block, groups=1, width_per_group=64):
        nn.Module.__init__(self)
        self._norm_layer, self.dilation = nn.BatchNorm2d, 1
        self.inplanes, self.groups, self.base_width = 8, groups, width_per_group
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        for i in range(4):
            made = self._make_layer(block, 8 * 2**i, 1, stride=1 if i == 0 else 2)
            setattr(self, f"layer{i + 1}", made)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(64 * block.expansion, CLASSES)


def vgg(counts, norm):
    cfg = [v for i, n in enumerate(counts) for v in (*[2 * min(2**i, 8)] * n, "M")]
    net = tv.VGG(tv.vgg.make_layers(cfg, norm), CLASSES)
    net.classifier = nn.Sequential(
        *(nn.Linear(16 * 49, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 128)),
        *(nn.ReLU(), nn.Dropout(), nn.Linear(128, CLASSES)),
    )
    return net


def alexnet():
    net = tv.AlexNet(CLASSES)
    net.features = nn.Sequential(
        *(nn.Conv2d(3, 4, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(4, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )
    net.classifier = nn.Sequential(
        *(nn.Dropout(), nn.Linear(16 * 36, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 256)),
        *(nn.ReLU(), nn.Linear(256, CLASSES)),
    )
    return net


def googlenet(**options):
    """torchvision's with an eighth of the filters, and one block of each number."""

    def thin_unit(before, filters, **shape):
        return BasicConv2d(before if before == 3 else before // 8, filters // 8, **shape)

    def thin_block(*filters):
        return Inception(*(n // 8 for n in filters))

    blocks = [thin_unit, thin_block, InceptionAux]
    net = tv.GoogLeNet(CLASSES, aux_logits=False, init_weights=False, blocks=blocks, **options)
    for name in ("3b", "4b", "4c", "4d", "4e", "5b"):
        setattr(net, f"inception{name}", nn.Identity())
    net.inception4a = thin_block(256, 192, 96, 208, 16, 48, 64)
    net.inception5a = thin_block(512, 256, 160, 320, 32, 128, 128)
    net.fc = nn.Linear(832 // 8, CLASSES)
    return net


def timm_resnet(block, stem, **options):
    return resnet.ResNet(
        block, (1, 1, 1, 1), CLASSES, stem_width=8, stem_type=stem, channels=(16, 32, 64, 128), **options
    )  # fmt: skip


def efficientnet():
    settings = [MBConvConfig(e, k, s, i, o, n, 1.0, 1.0) for (e, o, n, s, k), i in
                zip(EXPANDED, [8, *(row[1] for row in EXPANDED)], strict=False)]  # fmt: skip
    return tv.EfficientNet(settings, 0.2, num_classes=CLASSES, last_channel=48)


def timm_efficientnet():
    rows = ["ds_r1_k3_s1_e1_c8_se0.25"] + [
        f"ir_r{n}_k{k}_s{s}_e{e}_c{o}_se0.25" for e, o, n, s, k in EXPANDED[1:]
    ]
    from timm.models._efficientnet_builder import decode_arch_def, round_channels
    from timm.models.efficientnet import EfficientNet

    return EfficientNet(
        decode_arch_def([[row] for row in rows]), CLASSES, 48, stem_size=8, act_layer=nn.SiLU,
        round_chs_fn=round_channels,
    )  # fmt: skip


MOBILE = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2], [6, 64, 1, 2]]
SIDES = (33, 64)
# Of each network what makes it, and the sides of the images that it is given.
NETS = {
    "timm vit": (lambda: vision_transformer.VisionTransformer(**VIT, dynamic_img_size=True), (64, 48)),
    "timm vit distilled": (
        lambda: timm.models.deit.VisionTransformerDistilled(**VIT, dynamic_img_size=True), (64, 80)),
    "torchvision vit": (lambda: tv.VisionTransformer(64, 16, 2, 3, 48, 192, num_classes=CLASSES), (64,)),
    "torchvision alexnet": (alexnet, (64, 75)),
    "torchvision googlenet": (googlenet, (64, 75)),
    "torchvision googlenet, transform_input": (lambda: googlenet(transform_input=True), (64,)),
    "torchvision vgg11": (lambda: vgg((1, 1, 2, 2, 2), False), SIDES),
    "torchvision vgg13_bn": (lambda: vgg((2, 2, 2, 2, 2), True), SIDES),
    "torchvision vgg19": (lambda: vgg((2, 2, 4, 4, 4), False), SIDES),
    "torchvision wide_resnet50_2": (lambda: ResNet(tv.resnet.Bottleneck, 1, 128), SIDES),
    "torchvision resnext50_32x4d": (lambda: ResNet(tv.resnet.Bottleneck, 4, 32), SIDES),
    "timm resnet18d": (lambda: timm_resnet(resnet.BasicBlock, "deep", avg_down=True), SIDES),
    "timm resnet50d": (lambda: timm_resnet(resnet.Bottleneck, "deep", avg_down=True), SIDES),
    "timm seresnet50": (
        lambda: resnet.ResNet(resnet.Bottleneck, (1, 1, 1, 1), CLASSES,
                              block_args={"attn_layer": "se"}), SIDES),
    "timm convnext": (lambda: convnext.ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), num_classes=CLASSES), SIDES),
    "torchvision convnext": (
        lambda: tv.ConvNeXt([CNBlockConfig(*c) for c in ((8, 16, 1), (16, 24, 1), (24, 32, 2), (32, None, 1))],
                            num_classes=CLASSES), SIDES),
    "torchvision densenet121": (lambda: tv.DenseNet(4, (2, 2, 2, 2), 8, 2, num_classes=CLASSES), SIDES),
    "torchvision mobilenet_v2": (lambda: tv.MobileNetV2(CLASSES, 0.25, MOBILE), SIDES),
    "torchvision efficientnet_b0": (efficientnet, SIDES),
    "timm efficientnet_b0": (timm_efficientnet, SIDES),
}  # fmt: skip


def filled(net):
    """The module in evaluation mode, with weights by the recipe."""
    state = {
        name: torch.from_numpy(recipe.weight(name, tuple(value.shape))) if value.ndim else value
        for name, value in net.state_dict().items()
    }
    net.load_state_dict(state)
    return net.eval()


def measured(net, side):
    """Logits [2,K], some of the values of the gradient of one logit, and the largest of all."""
    x = np.concatenate([recipe.image(side, side), recipe.image(side, side)[:, ::-1]])
    x = torch.from_numpy(x.copy()).permute(0, 3, 1, 2).requires_grad_()
    logits = net(x)
    (slope,) = torch.autograd.grad(logits[:, LABEL].sum(), x)
    slope = slope.permute(0, 2, 3, 1).numpy().ravel()
    places = np.random.RandomState(side).randint(0, slope.size, PLACES)
    return logits.detach().numpy(), slope[places], np.abs(slope).max()


if __name__ == "__main__":
    arrays = {}
    for name, (make, sides) in NETS.items():
        net = filled(make())
        shapes = {k: list(v.shape) for k, v in net.state_dict().items() if v.ndim}
        arrays[name] = np.array(json.dumps(shapes))
        for side in sides:
            for key, value in zip(
                ("logits", "slopes", "largest"), measured(net, side), strict=True
            ):
                arrays[f"{name} x {side} {key}"] = value
        print(name, len(shapes), arrays[f"{name} x {sides[0]} logits"][0])
    # Of a network whose names change with its depth, the names alone.
    shapes = {
        k: list(v.shape)
        for k, v in timm.create_model("mobilenetv2_100").state_dict().items()
        if v.ndim
    }
    arrays["names mobilenet_v2"] = np.array(json.dumps(shapes))
    np.savez_compressed(pathlib.Path(__file__).parent / "data/torch_families.npz", **arrays)
