"""The public calls on a GPU: for real where there is one, and everywhere on tensors that only pretend to be there."""

from __future__ import annotations

import copy
import warnings
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.data import AttributeData
from csvae_hub.models import Latents, create_model, list_models
from csvae_hub.training import Trainer, load_recipe
from csvae_hub.training.parts.critic import Critic
from csvae_hub.training.recipes import objective_of

NAMES = ("Smiling", "Hat", "Young")
PICTURES = {"shape": (3, 16, 16), "z_dim": 8, "backbone": BackboneConfig(width=4, features=16)}
OURS = {"residual": True, "correction": True, "backbone": BackboneConfig(width=4, features=16, film=True)}
MODELS = {
    **{name: {"model": name} for name in list_models()},
    "csvae, an eraser": {**OURS, "erase": True, "learn_priors": True},
    "csvae, a flow": {**OURS, "flow": 8, "min_scale": 0.1},
    "csvae, z with places": {"z_grid": 4, "z_dim": 32},
    "csvae, a group": {"exclusive": (("Smiling", "Young"),)},
    "csvae, grey": {"shape": (1, 16, 16)},
    "csvae, vectors": {"shape": (5,), "backbone": BackboneConfig(name="mlp", width=8, features=16)},
}


def edited(model, x, value):
    return model.decode(model.set_attribute(model.encode(x), "Hat", value))


CALLS = {
    "encode": lambda model, x: model.encode(x),
    "encode a sample": lambda model, x: model.encode(x, sample=True),
    "decode": lambda model, x: model.decode(model.encode(x)),
    "reconstruct": lambda model, x: model.reconstruct(x),
    "set_attribute": lambda model, x: model.set_attribute(x, "Hat", True),
    "edit": lambda model, x: model.edit(x, {"Hat": 0.7, "Smiling": True}),
    "edit latents": lambda model, x: edited(model, x, 1.5),
    "take over": lambda model, x: edited(model, x, model.encode(x)),
    "edit by a tensor": lambda model, x: edited(model, x, torch.full((), 0.5, device=x.device)),
    "predict_attributes": lambda model, x: list(model.predict_attributes(x).values()),
}
RANDOM = {
    "an edit by a draw": lambda model, x: edited(model, x, "sample"),
    "the same, of latents on the CPU": lambda model, x: model.set_attribute(model.encode(x).to("cpu"), "Hat", "sample"),
    "sample": lambda model, x: model.sample(2, generator=torch.Generator().manual_seed(0)),
    "sample attributes": lambda model, x: model.sample(2, torch.ones(len(NAMES))) if "y" in takes(model) else 0,
    "a draw of the CPU": lambda model, x: model.encode(x, sample=True, generator=torch.Generator().manual_seed(0)),
}


def takes(model):
    """What the decoder reads beside z."""
    return "" if model.name == "vae" else "y"


@cache
def made(kind):
    """One model of each kind; nothing changes it."""
    torch.manual_seed(0)
    return create_model(ModelConfig(**{"attributes": NAMES, **PICTURES, **MODELS[kind]})).eval()


def tensors(given):
    if isinstance(given, Latents):
        return [given.z, given.w, given.y]
    return list(given) if isinstance(given, list) else [given]


# -- tensors that pretend to be on a GPU: any machine -----------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Notes the copies between devices that the CPU waits for."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        waits = not (kwargs or {}).get("non_blocking")
        if func is torch.ops.aten._to_copy.default and result.device != args[0].device and waits:
            self.found.append(f"{args[0].device} to {result.device}")
        if func is torch.ops.aten.index.Tensor and any(i is not None and i.device != args[0].device for i in args[1]):
            self.found.append("an index")
        return result


@contextmanager
def pretended(model, dtype=torch.float32):
    """The model with fake parameters on cuda; gives a batch for it."""
    model = copy.deepcopy(model)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in model.modules():
            for name, p in module._parameters.items():
                if p is not None:
                    fake = mode.from_tensor(p.detach()).to("cuda", dtype)
                    module._parameters[name] = nn.Parameter(fake, p.requires_grad)
            for name, b in module._buffers.items():
                if b is not None:
                    module._buffers[name] = mode.from_tensor(b).to("cuda", dtype if b.is_floating_point() else None)
        yield model, torch.rand(2, *model.config.shape[-3:], device="cuda")


def pictures_of(model, x):
    return x.expand(-1, 3, -1, -1) if model.config.is_image else x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", MODELS)
def test_no_call_leaves_the_device_or_reads_a_value(kind, dtype):
    with pretended(made(kind), dtype) as (model, x):
        for name, call in CALLS.items():
            with Waits() as waits:
                found = call(model, pictures_of(model, x))
            assert {t.device.type for t in tensors(found)} == {"cuda"}, name
            assert waits.found == [], name


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_drawn_on_the_cpu_reaches_the_device(kind):
    with pretended(made(kind)) as (model, x):
        for call in RANDOM.values():
            call(model, pictures_of(model, x))


@pytest.mark.parametrize("kind", MODELS)
def test_inputs_of_the_cpu_are_taken_to_the_device(kind):
    with pretended(made(kind)) as (model, x):
        latents = model.encode(pictures_of(model, x), torch.ones(2, len(NAMES)))
        assert latents.z.device.type == "cuda"
        assert model.decode(latents.to("cpu")).device.type == "cuda"
        assert model.set_attribute(latents.to("cpu"), "Hat", 0.5).w.device.type == "cpu"


def test_the_pretence_finds_a_value_that_is_read_and_a_tensor_on_the_cpu():
    with pretended(made("csvae")) as (model, x):
        with pytest.raises(Exception, match="_local_scalar_dense"):
            x.max().item()
        with pytest.raises(RuntimeError, match="device"):
            model.encode(x).z + torch.ones(2, 8)
        with Waits() as waits:
            x[:, torch.tensor([0, 1])] + torch.ones(2, 1, 1).to("cuda")
        assert len(waits.found) == 2


# -- a real GPU -------------------------------------------------------------------------------------------------------


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture
def exact():
    """No TF32, which rounds to ten bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@contextmanager
def no_waiting():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that the mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def both(kind):
    model = made(kind)
    return model, copy.deepcopy(model).to("cuda"), pictures_of(model, torch.rand(3, *model.config.shape))


def check_alike(on_cpu, on_gpu):
    for expected, found in zip(tensors(on_cpu), tensors(on_gpu), strict=True):
        assert found.device.type == "cuda"
        torch.testing.assert_close(found.detach().cpu(), expected.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", MODELS)
def test_a_gpu_gives_what_the_cpu_gives(kind, exact):
    on_cpu, on_gpu, x = both(kind)
    for name, call in CALLS.items():
        if name != "encode a sample":  # drawn on the device
            check_alike(call(on_cpu, x), call(on_gpu, x.to("cuda")))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", MODELS)
def test_draws_of_a_generator_of_the_cpu_are_the_same(kind, exact):
    on_cpu, on_gpu, x = both(kind)
    for name in ("sample", "a draw of the CPU"):
        check_alike(RANDOM[name](on_cpu, x), RANDOM[name](on_gpu, x.to("cuda")))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", MODELS)
def test_pictures_of_the_cpu_come_back_there(kind):
    _, model, x = both(kind)
    with torch.no_grad():
        latents = model.encode(x, torch.ones(3, len(NAMES)))
        assert latents.z.device.type == "cuda"
        assert model.decode(latents.to("cpu")).device.type == "cuda"
        if model.config.is_image:
            assert model.set_attribute(x, "Hat").device.type == "cpu"


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", MODELS)
def test_the_cpu_does_not_wait_between_encode_and_decode(kind):
    _, model, x = both(kind)
    x = x.to("cuda")
    with torch.no_grad():
        edited(model, x, True)
        with no_waiting():
            edited(model, x, True)
            model.set_attribute(x, "Hat", 0.3)
            model.predict_attributes(x)


@pytest.mark.gpu
@needs_gpu
def test_a_training_step_with_a_critic():
    pytest.importorskip("accelerate")
    recipe = load_recipe("synthetic-faces", {"parts.critic.weight": "100.0", "trainer.batch_size": "4"})
    rng, model = np.random.default_rng(0), recipe.model
    labels = rng.integers(0, 2, (16, len(model.attributes))).astype(np.float32)
    data = AttributeData(rng.integers(0, 256, (16, *model.shape), dtype=np.uint8), labels, model.attributes)
    trainer = Trainer(objective_of(recipe, data), replace(recipe.trainer, precision="bfloat16"), data, quiet=True)
    assert trainer.device.type == "cuda"
    next(part for part in trainer.objective.parts if isinstance(part, Critic)).reading.zero_()  # it reads already
    before = {name: p.detach().clone() for name, p in trainer.objective.named_parameters()}
    x, y = data.batch(torch.arange(4))
    for batch in range(2):
        means = trainer.train_step(x.to("cuda"), y.to("cuda"), batch)
    assert all(value.isfinite() for value in means.values())
    moved = [name for name, p in trainer.objective.named_parameters() if not torch.equal(p, before[name])]
    assert {name.split(".")[0] for name in moved} == {"model", "parts"}
