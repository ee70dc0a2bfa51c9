"""Times encode, decode and training on a CPU beside pythae, and the start beside that of torch.

    pip install --target SITE --no-deps pythae==0.1.2
    PYTHONPATH=SITE python benchmarks/speed.py -o docs/results/speed.json

pythae's VAE gets networks of the same convolutions as the weights: batch norm behind each and ReLU, as in pythae's own,
without what reads or changes attributes. Bare are the model's own layers called one by one, batch norm unfolded, with
the linear layers of its heads. All are called in turns within one process, without gradients, on tensors; the medians
are kept, and the ratios are medians over the turns.

The training step is that of the recipe paper-celeba, 64 pictures: forward, backward and Adam, the adversary's too; of
pythae's VAE, forward, backward and Adam (`speed_training.py`). The cold start is a fresh process that edits a file,
beside one that imports torch, in turns. Run it on idle cores.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from speed_training import training
from torch import Tensor, nn

from csvae_hub import CSVAE, hub
from csvae_hub.backbones.layers import ConvBlock

BATCHES = {1: 60, 64: 15}
"""Turns for each number of pictures."""
STARTS = 7
PICTURE = Path(__file__).resolve().parents[1] / "examples/astronaut.png"


def plain(block: ConvBlock) -> nn.Sequential:
    """The block's convolution as pythae's networks have them."""
    conv = block.conv
    up = [nn.Upsample(scale_factor=2)] if block.upsample else []
    same = nn.Conv2d(conv.in_channels, conv.out_channels, 3, conv.stride, 1)
    return nn.Sequential(*up, same, nn.BatchNorm2d(conv.out_channels), nn.ReLU())


def pythae_model(model: CSVAE) -> Any:
    """Pythae's VAE with the convolutions of the model."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    backbone, z_dim, side = model.backbone, model.config.z_dim, model.config.image_size

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*map(plain, backbone.down), nn.Flatten())
            inputs, features = backbone.features.in_features, backbone.features.out_features
            self.features = nn.Sequential(nn.Linear(inputs, features), nn.BatchNorm1d(features), nn.ReLU())
            self.embedding, self.log_var = nn.Linear(features, z_dim), nn.Linear(features, z_dim)

        def forward(self, x: Tensor) -> Any:
            h = self.features(self.layers(x))
            return ModelOutput(embedding=self.embedding(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            start, pixels = backbone.start, backbone.pixels
            self.start = nn.Sequential(
                nn.Linear(z_dim, start.out_features), nn.Unflatten(1, (-1, backbone.smallest, backbone.smallest))
            )
            last = nn.Conv2d(pixels.in_channels, pixels.out_channels, 3, 1, 1)
            blocks = map(plain, [backbone.start_block, *backbone.up])
            self.layers = nn.Sequential(*blocks, last, nn.PixelShuffle(2), nn.Sigmoid())

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(self.start(z)))

    config = VAEConfig(input_dim=(3, side, side), latent_dim=z_dim)
    return VAE(config, encoder=Encoder(), decoder=Decoder()).eval()


def bare_block(block: ConvBlock, h: Tensor, condition: Tensor | None = None) -> Tensor:
    """The block's layers one by one."""
    h = block.norm(block.conv(F.interpolate(h, scale_factor=2.0) if block.upsample else h))
    return F.silu(h if condition is None else block.modulation(h, condition))


def bare_encode(model: CSVAE, x: Tensor) -> Tensor:
    """The layers from images (B, C, H, W) to the heads; gives that of z."""
    h, backbone = 2 * x - 1, model.backbone
    for block in backbone.down:
        h = bare_block(block, h)
    features = F.silu(backbone.features_norm(backbone.features(h.flatten(1))))
    model.q_z.correction(features)
    model.q_w.lift(features)
    nn.Sequential.forward(model.q_y, features)
    return model.q_z.head(features)


def bare_decode(model: CSVAE, z: Tensor, w: Tensor) -> Tensor:
    """The layers from z (B, z_dim) and w (B, k * w_dim) to images (B, C, H, W)."""
    backbone = model.backbone
    h = backbone.start(torch.cat([z, w], 1)).unflatten(1, (-1, backbone.smallest, backbone.smallest))
    for block in (backbone.start_block, *backbone.up):
        h = bare_block(block, h, w)
    return F.pixel_shuffle(backbone.pixels(h), 2).sigmoid()


def calls(model: CSVAE, batch: int) -> dict[str, Callable[[], object]]:
    """Ours, pythae's and the bare layers' encode and decode of so many pictures."""
    x = torch.rand(batch, *model.config.shape)
    theirs, latents = pythae_model(model), model.encode(x)
    z, w = latents.z, latents.w.flatten(1)

    return {
        "encode": lambda: model.encode(x),
        "encode, pythae": lambda: theirs.encoder(x),
        "encode, bare": lambda: bare_encode(model, x),
        "decode": lambda: model.decode(latents),
        "decode, pythae": lambda: theirs.decoder(z),
        "decode, bare": lambda: bare_decode(model, z, w),
    }


def measure(model: CSVAE, batch: int, turns: int) -> dict[str, Any]:
    """Milliseconds of each call, and how many times ours the others take."""
    made, seen = calls(model, batch), {}
    for _ in range(turns + 2):
        for name, call in made.items():
            start = time.perf_counter()
            call()
            seen.setdefault(name, []).append(1000 * (time.perf_counter() - start))
    seen = {name: times[2:] for name, times in seen.items()}
    ratios = {
        f"{name} over ours": statistics.median(a / b for a, b in zip(times, seen[name.partition(",")[0]], strict=True))
        for name, times in seen.items()
        if "," in name
    }
    return {"ms": {name: statistics.median(times) for name, times in seen.items()}, **ratios}


def cold_start(model_name: str, rounds: int) -> dict[str, float]:
    """Seconds of fresh processes: one imports torch, one gives the first edited picture of a file."""
    edit = "from csvae_hub import CSVAE\nmodel = CSVAE.from_pretrained({!r})\nmodel.set_attribute({!r}, 'Smiling')"
    codes = {"import torch": "import torch", "first edit": edit.format(model_name, str(PICTURE))}
    seen: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(rounds + 1):
        for name, code in codes.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
            seen[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times[1:]) for name, times in seen.items()}  # the first fills the cache
    return {**medians, "ratio": medians["first edit"] / medians["import torch"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="celeba-64", help="packaged weights of the backbone conv")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few turns, to try the command")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/speed.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = CSVAE.from_pretrained(arguments.model, device="cpu")
    with torch.no_grad():
        found = {str(batch): measure(model, batch, 3 if arguments.quick else turns) for batch, turns in BATCHES.items()}
    found = {
        "pictures": found,
        "training": training(pythae_model, arguments.quick),
        "cold_start": cold_start(arguments.model, 1 if arguments.quick else STARTS),
    }
    command = shlex.join(["python", "benchmarks/speed.py", *sys.argv[1:]])
    about = {"command": command, "model": arguments.model, "torch": torch.__version__, "threads": arguments.threads}
    hub.write_json(arguments.output, {**about, "machine": platform.machine(), **found})
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
