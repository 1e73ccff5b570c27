"""Small networks of the kinds people dissect, with random weights.

Knows: architectures. Does not know: what is tested on them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, **options: object) -> nn.Sequential:
    options.setdefault("padding", kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, bias=False, **options),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def tiny(units: int = 4) -> nn.Sequential:
    """Convolution, batch norm, ReLU, pooling and a classifier, of 8 x 8 images."""
    return nn.Sequential(
        nn.Conv2d(3, units, 3, padding=1),
        nn.BatchNorm2d(units),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(units * 16, 5),
    )


def alexnet_features() -> nn.Sequential:
    """AlexNet's five convolutions as first published: 227 px in, 13 x 13 out."""
    layers = {
        "conv1": nn.Conv2d(3, 96, 11, stride=4),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(3, 2),
        "conv2": nn.Conv2d(96, 256, 5, padding=2, groups=2),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(3, 2),
        "conv3": nn.Conv2d(256, 384, 3, padding=1),
        "relu3": nn.ReLU(),
        "conv4": nn.Conv2d(384, 384, 3, padding=1, groups=2),
        "relu4": nn.ReLU(),
        "conv5": nn.Conv2d(384, 256, 3, padding=1, groups=2),
        "relu5": nn.ReLU(),
    }
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


class CamVidNet(nn.Module):
    """Five conv blocks with three pools, the last of them unpadded (13 cells of 28)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = conv(3, 6, 7, 2)
        self.pool1 = nn.MaxPool2d(3, 2, 1)
        self.layer2 = conv(6, 8, 3)
        self.pool2 = nn.MaxPool2d(3, 2, 1)
        self.layer3 = conv(8, 8, 3)
        self.pool3 = nn.MaxPool2d(3, 2, 0)
        self.layer4 = conv(8, 8, 3)
        self.layer5 = conv(8, 8, 3)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.layer1(x))
        x = self.pool2(self.layer2(x))
        x = self.pool3(self.layer3(x))
        return self.head(self.layer5(self.layer4(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (strided), 1x1 with a shortcut; one shared ReLU, as everybody writes it."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, width: int, blocks: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        inputs = width
        for number, count in enumerate(blocks):
            stage = nn.Sequential()
            for block in range(count):
                stage.append(Bottleneck(inputs, width << number, 2 if number and not block else 1))
                inputs = 4 * (width << number)
            self.add_module(f"layer{number + 1}", stage)
        self.stages = len(blocks)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet50_shaped(width: int = 64, classes: int = 1000) -> ResNet:
    """ResNet-50 at width 64: `layer1` 256 units to `layer4` 2,048, 56 x 56 to 7 x 7 cells of 224 px."""
    return ResNet(width, (3, 4, 6, 3), classes)


def small_resnet(width: int = 2) -> ResNet:
    return ResNet(width, (2, 1, 1), 5)


class Inception(nn.Module):
    """A reduction whose branches see 1, 3, 5 and 3 (pooled) cells, then one that keeps the size."""

    class Mixed(nn.Module):
        def __init__(self, inputs: int, stride: int) -> None:
            super().__init__()
            self.one = conv(inputs, 2, 1, stride)
            self.three = nn.Sequential(conv(inputs, 2, 1), conv(2, 3, 3, stride))
            self.five = nn.Sequential(conv(inputs, 2, 1), conv(2, 2, 5, stride))
            self.pool = nn.Sequential(nn.MaxPool2d(3, stride, 1), conv(inputs, 2, 1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 4, 3, 2, padding=0)
        self.mixed1 = self.Mixed(4, 2)
        self.mixed2 = self.Mixed(9, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mixed2(self.mixed1(self.stem(x)))


class Dense(nn.Module):
    """Two dense blocks with an average-pooled transition, features gathered in a list."""

    class Block(nn.Module):
        def __init__(self, inputs: int, count: int) -> None:
            super().__init__()
            self.steps = nn.ModuleList(
                nn.Sequential(nn.BatchNorm2d(inputs + 2 * i), nn.ReLU(), nn.Conv2d(inputs + 2 * i, 2, 3, padding=1))
                for i in range(count)
            )

        def forward(self, x: Tensor) -> Tensor:
            features = [x]
            for step in self.steps:
                features.append(step(torch.cat(features, dim=1)))
            return torch.cat(features, dim=1)

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 4, 3, 2)
        self.block1 = self.Block(4, 3)
        self.transition = nn.Sequential(conv(10, 4, 1), nn.AvgPool2d(2, 2))
        self.block2 = self.Block(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.block2(self.transition(self.block1(self.stem(x))))


class Gate(nn.Module):
    """Squeeze and excitation: a factor per unit from the mean over the whole map."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(units, 2), nn.Linear(2, units)

    def forward(self, x: Tensor) -> Tensor:
        batch, units, _, _ = x.size()
        factor = functional.adaptive_avg_pool2d(x, 1).view(batch, units)
        factor = torch.sigmoid(self.excite(functional.relu(self.squeeze(factor))))
        return x * factor.view(batch, units, 1, 1).expand_as(x)


class ConvGate(nn.Module):
    """The same with 1x1 convolutions and a mean that keeps its dims."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(units, 2, 1), nn.Conv2d(2, units, 1)

    def forward(self, x: Tensor) -> Tensor:
        factor = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(functional.silu(self.squeeze(factor))))


class Functional(nn.Module):
    """CamVidNet's first layers written with functions and methods only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(6, 3, 7, 7)), nn.Parameter(torch.randn(8, 6, 3, 3))
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("var", torch.ones(6))
        self.body, self.tail = nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(functional.pad(x, (3, 3, 3, 3)), self.first, stride=2)
        x = functional.batch_norm(x, self.mean, self.var).relu_()
        x = self.body(functional.max_pool2d(functional.dropout(x, training=self.training), 3, 2, 1))
        x = torch.conv2d(x, self.second, padding="same") * 2 + 1
        x *= 2
        x = functional.gelu(torch.relu(x))
        return self.tail(functional.max_pool2d(x.clamp(min=0), kernel_size=3, stride=2, padding=1))


class ByValue(nn.Module):
    """Takes another way for bright images: no geometry without data after the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x) if x.mean() > 0 else self.second(x[:, :, ::2])


class Branching(nn.Module):
    """One branch goes through an operation nobody has a rule for, the other does not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.plain, self.odd, self.join = (nn.Conv2d(i, 4, 3, padding=1) for i in (3, 4, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        odd = self.odd(torch.roll(x, 1, 2))
        return self.join(self.plain(x) + odd)


class Shared(nn.Module):
    """One convolution used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.unused = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x))
