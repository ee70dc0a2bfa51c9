"""Takes out of a trained model's z what it says of the attributes, and teaches the decoder to do without.

    python benchmarks/silent_z.py celeba-64 --data FOLDER -o runs/celeba-64-silent

For a CSVAE with a vector z. A flow of `csvae_hub.erasure` is fitted behind the encoder: z has the same density whatever
the attributes are. Then the decoder learns, from this z, to draw what the decoder before drew from the old one: the
picture as it was, which is to be near the photo as well, and with one attribute switched. Encoder, w and the class
means stay as they are, and no critic is needed: what a good edit is, the old decoder knows. OUT/model is for
`celeba.py --trained`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass, replace
from math import cos, pi
from pathlib import Path

import torch
from torch import Tensor, nn

from csvae_hub.data import AttributeData, load_data
from csvae_hub.models import CSVAE, Latents
from csvae_hub.training.parts._common import switch_one_attribute

ENCODER, ADVERSARY = ("down", "features"), "adversary_net."
NEAR = 0.25
"""Weight of the squared distance to the photo; those to the old decoder's two pictures have a half each."""
DONORS, BETWEEN, SAMPLED = 0.3, 0.3, 0.3
"""Shares of edits to a w of another picture, and to a point before or beyond it; and of sampled codes."""


@dataclass(frozen=True)
class Options:
    """How the decoder is taught; recorded in training.json."""

    epochs: int = 6
    batch_size: int = 128
    learning_rate: float = 3e-4
    precision: str = "bfloat16"
    seed: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a packaged model or a folder")
    parser.add_argument("--data", required=True, help="pictures with attributes.csv, split train")
    parser.add_argument("--flow", type=int, default=96, help="width of the flow's networks")
    parser.add_argument("--epochs", type=int, default=Options.epochs)
    parser.add_argument("--pictures", type=int, help="at most so many, to try the command")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    options, began = Options(epochs=arguments.epochs), time.monotonic()
    torch.manual_seed(options.seed)
    teacher = CSVAE.from_pretrained(arguments.model, device="cpu")
    data = load_data(arguments.data, teacher.attributes, "train", teacher.config.image_size)
    data = data.subset(range(min(len(data), arguments.pictures or len(data))))
    student, codes = with_flow(teacher, data, arguments.flow)
    teach(student, teacher, codes, data, options)
    record = {
        "initial": arguments.model,
        "script": "benchmarks/silent_z.py",
        "model": {"flow": arguments.flow},
        "trainer": asdict(options),
        "examples": len(data),
        "data_fingerprint": data.fingerprint,
        "device": "cpu",
        "elapsed_seconds": round(time.monotonic() - began, 1),
        "versions": {"torch": torch.__version__},
    }
    student.save_pretrained(arguments.output / "model", extra={"training.json": record})


@dataclass(frozen=True)
class Codes:
    """Of each picture (0), and of it mirrored (1): E[z | x] before and behind the flow, and the likelier attributes."""

    before: Tensor
    behind: Tensor
    y: Tensor


@torch.no_grad()
def with_flow(teacher: CSVAE, data: AttributeData, width: int) -> tuple[CSVAE, Codes]:
    """A copy with a flow that is fitted to the data, and without the adversary, which knows the old z alone."""
    config = replace(teacher.config, flow=width, adversary=())
    student = CSVAE(config, teacher.preprocessor).eval()
    kept = {name: value for name, value in teacher.state_dict().items() if not name.startswith(ADVERSARY)}
    missing, unexpected = student.load_state_dict(kept, strict=False)
    assert not unexpected
    assert all(name.startswith((ADVERSARY, "q_z.flow.")) for name in missing), missing
    rows = torch.arange(len(data)).split(256)
    latents = [
        Latents.cat([teacher.encode(mirrored(data.batch(some)[0], torch.tensor(flip))) for some in rows])
        for flip in (0, 1)
    ]
    before, y = torch.stack([found.z for found in latents]), torch.stack([found.y.round() for found in latents])
    flow = student.q_z.flow
    assert flow is not None
    print(f"fitting the flow to {2 * len(data):,} codes", flush=True)
    flow.fit(before.flatten(0, 1), y.flatten(0, 1))
    behind = torch.stack([flow(codes, told) for codes, told in zip(before, y, strict=True)])
    return student, Codes(before, behind, y)


def teach(student: CSVAE, teacher: CSVAE, codes: Codes, data: AttributeData, options: Options) -> None:
    """Trains the student's decoder to draw from the codes behind the flow what the teacher's draws from those before.

    The moments of batch norm stay, so that the decoder is the same in training and at rest.
    """
    decoder = [p for name, p in student.backbone.named_parameters() if not name.startswith(ENCODER)]
    optimizer = torch.optim.Adam(student.requires_grad_(False).parameters(), options.learning_rate, (0.9, 0.99))
    for parameter in decoder:
        parameter.requires_grad_(True)
    student.train()
    for module in student.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    size, steps, step = options.batch_size, options.epochs * (len(data) // options.batch_size), 0
    means = torch.zeros(3)
    for _ in range(options.epochs):
        for rows in torch.randperm(len(data)).split(size)[: len(data) // size]:
            flips = torch.randint(2, (size,))
            factor = min(1, (step + 1) / 100) * 0.5 * (1 + cos(pi * step / steps))
            optimizer.param_groups[0]["lr"] = options.learning_rate * factor
            x = mirrored(data.batch(rows)[0], flips)
            old, new = taught(teacher, x, *(part[flips, rows] for part in (codes.before, codes.behind, codes.y)))
            with torch.autocast("cpu", torch.bfloat16):
                with torch.no_grad():
                    target = teacher.p_x_given(old).mean.float()
                drawn = student.p_x_given(new).mean.float()
            as_was, edited = (drawn - target).square().mean((1, 2, 3)).split(size)
            distances = torch.stack([as_was.mean(), edited.mean(), (drawn[:size] - x).square().mean()])
            optimizer.zero_grad()
            (1e3 * (distances * distances.new_tensor([0.5, 0.5, NEAR])).sum()).backward()
            optimizer.step()
            means, step = torch.lerp(means, distances.detach(), 1 if step == 0 else 0.02), step + 1
            if step % 50 == 0 or step == steps:
                said = ", ".join(f"{mean:.5f}" for mean in means.tolist())
                print(f"batch {step} of {steps}: as it was, edited, to the photo: {said}", flush=True)
    student.eval().requires_grad_(True)


@torch.no_grad()
def taught(teacher: CSVAE, x: Tensor, before: Tensor, behind: Tensor, y: Tensor) -> tuple[Latents, Latents]:
    """Latents of pictures, and of these with one attribute switched, with the z of the teacher and of the student."""
    with torch.autocast("cpu", torch.bfloat16):
        features = teacher.backbone.encode(x)
        mean, sample = (teacher.posterior_latents(features, y, sampled, None) for sampled in (False, True))
    n = len(x)
    noise = (sample.z - mean.z).float() * (torch.rand(n, 1) < SAMPLED)
    w = torch.where(torch.rand(n, 1, 1) < SAMPLED, sample.w, mean.w).float()
    edited = switch_one_attribute(teacher, replace(mean, z=before, w=w), DONORS).latents.w
    share = torch.where(torch.rand(n, 1, 1) < BETWEEN, 1.2 * torch.rand(n, 1, 1), 1.0)
    old, new = (Latents(z + noise, w, y, teacher.attributes) for z in (before, behind))
    edited = torch.lerp(w, edited, share)
    return Latents.cat([old, replace(old, w=edited)]), Latents.cat([new, replace(new, w=edited)])


def mirrored(x: Tensor, flips: Tensor) -> Tensor:
    """Pictures (B, C, S, S), mirrored where `flips`, (B,) or a number, is 1."""
    return torch.where(flips.bool().expand(len(x))[:, None, None, None], x.flip(-1), x)


if __name__ == "__main__":
    main()
