"""Saves a model to a folder or a Hub repo, and loads it from there; the same for every model of the family."""

from __future__ import annotations

import inspect
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from typing_extensions import Self

from csvae_hub import hub
from csvae_hub.backbones import find_backbone
from csvae_hub.config import ModelConfig, from_dict, shortened, shown, to_dict
from csvae_hub.errors import (
    ConfigError,
    HubOfflineError,
    NonFiniteWeightsError,
    WeightsError,
    WeightsMismatchError,
    did_you_mean,
)
from csvae_hub.hub.tensors import TensorFile, first
from csvae_hub.images import Preprocessor

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

LATER = ("class_scales",)
"""Tensors that weights of format 1 may lack; they stay as they are before training."""


class Pretrained(nn.Module):
    """A module built from a `ModelConfig` and a `Preprocessor`, both saved beside its weights."""

    name: str
    """This class's value of `ModelConfig.model`; an abstract class has none."""

    config: ModelConfig
    preprocessor: Preprocessor
    _folder: Path | None = None

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        dtype: torch.dtype | str | None = None,
        extra: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        """Writes config.json, model.safetensors and preprocessor.json, and further JSON files.

        Args:
            folder: made if it is missing; each file is replaced whole.
            dtype: torch's type or its name; "float16" halves the file. Default: the parameters' own.
            extra: further JSON files by name, such as {"training.json": {...}}.
        """
        from csvae_hub import __version__

        config = {"csvae_hub_version": __version__, **to_dict(self.config)}
        state = self.state_dict()
        if dtype is not None:
            state = {k: v.to(_dtype(dtype)) if v.is_floating_point() else v for k, v in state.items()}
        files = {hub.PREPROCESSOR: to_dict(self.preprocessor), **(extra or {})}
        hub.save_weights(folder, config, state, files)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        strict: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> Self:
        """Loads a model from a folder, by the name of a packaged one, or from the Hugging Face Hub, in eval mode.

        A model class takes its own weights only; `AttributeModel` gives the class that config.json names.

        Args:
            name_or_path: an existing folder, else a name from `list_models(pretrained=True)`, else a Hub repo such as
                "user/name". The prefix `local-dir:` forces the first, `hf-hub:` the last.
            revision: branch, tag or commit of a Hub repo.
            token: for private and gated Hub repos. Default: the one that `hf auth login` stored.
            cache_dir: folder for downloads. Default: the Hub's own cache.
            force_download: download files again that are in the cache.
            local_files_only: use the cache and no network. Folders and packaged models ignore this and the three
                arguments above.
            strict: refuse weights with tensors that the model doesn't know. Missing tensors are always refused.
            device: default: CUDA if there is one, else the CPU.
            dtype: torch's type or its name; default: float32.

        Raises:
            UnknownModelError: no such folder, packaged name or Hub repo.
            HubError: the Hub repo can't be read; the subclass gives the reason.
            WeightsError: a file is missing, corrupt or doesn't fit; the subclass gives the reason.
            ConfigError: config.json has an impossible value, or names another model.
            ValueError: a revision of a folder or packaged model, a dtype that is not floating, or a device that this
                machine does not have.
        """
        floating = _dtype(dtype)
        target = device_of(device)
        folder = hub.resolve(
            name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        config = hub.read_model_config(folder)
        preprocessor = from_dict(Preprocessor, hub.read_json(hub.inside(folder, hub.PREPROCESSOR)))
        concrete = cls._named(config.model, folder)
        find_backbone(config.backbone)  # imports its package now, so that `_Bound` does not count its tensors
        file = TensorFile(hub.inside(folder, hub.WEIGHTS))
        try:
            with torch.device("cpu"), torch.random.fork_rng(devices=[]), _Bound(file.described):
                model = concrete(config, preprocessor)
            own = model.state_dict()
            _check_state(own, {name: own[name] for name in LATER if name in own} | file.described, strict)
        except WeightsMismatchError as error:
            raise WeightsMismatchError(f"{folder}: {error}") from None
        own = model.to(floating).state_dict()
        if too_large := file.fill({name: tensor for name, tensor in own.items() if name in file.described}):
            raise NonFiniteWeightsError(
                f"{folder / hub.WEIGHTS} holds numbers too large for {floating} in {first(too_large)}:"
                " ask for dtype 'float32' or 'bfloat16'"
            )
        model._folder = folder.absolute()
        return model.to(target).eval()

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        commit_message: str = "Upload weights with csvae-hub",
        overwrite_card: bool = False,
        tag: str | None = None,
        folder: str | Path | None = None,
        dtype: torch.dtype | str | None = None,
        card_fields: Mapping[str, Any] | None = None,
    ) -> CommitInfo:
        """Sends the model to a Hub repo in one commit: weights, config, preprocessor and their companions.

        If the weights are unchanged since they were loaded, the folder's own weights file is sent, with its
        training.json, evaluation.json, samples.png and README.md. Without a README.md, a model card is made from the
        JSON files.

        Args:
            repo_id: "user/name"; made if it is missing.
            private: for a new repo. Default: the account's setting.
            token: needs the right to write. Default: the one that `hf auth login` stored.
            branch: made if it is missing. Default: `main`.
            create_pr: open a pull request instead of committing.
            commit_message: its first line.
            overwrite_card: replace a card that was written or edited by hand in the repo. Default: keep it.
            tag: a name for this version, such as "v1.0".
            folder: holds training.json and the other companions. Default: the folder that the model came from.
            dtype: type of the sent weights. Default: the file's or, for changed weights, the parameters'.
            card_fields: for the card's front matter: `license`, `license_name`, `license_link`, `datasets`, …

        Raises:
            HubTokenError: the token is missing, wrong, or may not write there.
            HubOfflineError: HF_HUB_OFFLINE is set.
            HubConnectionError: the Hub can't be reached, or breaks off.
            HubError: the Hub refuses, the tag is taken, or a public repo exists where a private one was asked for.
            CardError: the front matter of README.md can't be read.
            ValueError: a tag together with `create_pr`, or a card that the Hub finds invalid.
        """
        from huggingface_hub import constants

        from csvae_hub.hub.card import make_card
        from csvae_hub.hub.upload import upload

        if constants.HF_HUB_OFFLINE:
            raise HubOfflineError(
                f"HF_HUB_OFFLINE is set, so nothing can be pushed to {repo_id}: unset it, and try again"
            )
        with tempfile.TemporaryDirectory() as temporary:
            staged = Path(temporary)
            origin = self._folder if self._folder is not None and self._is_of(self._folder) else None
            self.save_pretrained(staged, dtype=dtype)
            if origin is not None and dtype is None:
                shutil.copyfile(hub.inside(origin, hub.WEIGHTS), staged / hub.WEIGHTS)
            source = folder if folder is not None else origin
            if source is not None:
                for path in (hub.inside(source, name) for name in (*hub.COMPANIONS, hub.PICTURE)):
                    if path.is_file():
                        shutil.copyfile(path, staged / path.name)
            (staged / hub.CARD).write_text(make_card(staged, repo_id, card_fields), encoding="utf-8")
            return upload(
                staged,
                repo_id,
                commit_message=commit_message,
                private=private,
                token=token,
                branch=branch,
                create_pr=create_pr,
                overwrite_card=overwrite_card,
                tag=tag,
            )

    def _is_of(self, folder: Path) -> bool:
        """True if these are the weights of a folder, apart from the type that they were loaded in."""
        try:
            theirs = hub.load_tensors(folder)
        except WeightsError:
            return False
        mine = self.state_dict()
        return mine.keys() <= theirs.keys() and all(
            torch.equal(tensor.cpu(), theirs[name].to(tensor.dtype)) for name, tensor in mine.items()
        )

    @classmethod
    def _named(cls, name: str, folder: Path) -> type[Self]:
        """The class of a name: this class or one of its subclasses."""
        classes: dict[str, type[Any]] = {c.name: c for c in _family(cls) if hasattr(c, "name")}
        if name not in classes:
            others = {c.name: c.__name__ for c in _family(Pretrained) if hasattr(c, "name")}
            elsewhere = f" Use {others.get(name, 'the class of that name')}.from_pretrained, or AttributeModel's."
            remedy = elsewhere if name in others else did_you_mean(name, classes) or elsewhere
            raise ConfigError(f"{folder}: model: expected {' or '.join(sorted(classes))}, got {shown(name)}:{remedy}")
        return classes[name]


def _family(cls: type[Any]) -> list[type[Any]]:
    """The class and its subclasses that are not abstract."""
    below = [found for child in cls.__subclasses__() for found in _family(child)]
    return below if inspect.isabstract(cls) else [cls, *below]


_FACTORIES = frozenset((torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full))


class _Bound(TorchFunctionMode):
    """Stops a config from a stranger that describes a model larger than its weights, before memory is taken.

    Allows twice the numbers and four times the tensors of the weights, since building takes some of its own.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.weights = sum(tensor.numel() for tensor in state.values()), len(state)
        self.numbers, self.tensors = 2 * self.weights[0] + 100_000, 4 * self.weights[1] + 1_000

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES:
            size = kwargs["size"] if "size" in kwargs else args[0] if func is torch.full else args
            self.numbers -= math.prod(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
            self.tensors -= 1
            if self.numbers < 0 or self.tensors < 0:
                raise WeightsMismatchError(
                    f"expected a model of {self.weights[0]} numbers in {self.weights[1]} tensors, as model.safetensors"
                    " holds, got a larger one by config.json. Use the files of one model"
                )
        return func(*args, **kwargs)


def device_of(device: torch.device | str | None) -> torch.device:
    """The device of a name; of None CUDA if there is one, else the CPU.

    Raises:
        ValueError: torch can't compute there.
    """
    try:
        found = torch.device("cuda" if torch.cuda.is_available() else "cpu") if device is None else torch.device(device)
        torch.zeros((), device=found).item()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        if str(device) == "meta":
            raise ValueError("device: expected one that holds numbers, such as 'cpu' or 'cuda', got 'meta'") from error
        raise ValueError(
            f"device: expected cpu, cuda or cuda:N, one that this machine has, got {str(device)!r} ({reason}): leave it"
            " out to have one chosen"
        ) from error
    return found


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype: expected a floating type such as 'float32' or 'bfloat16', got {dtype!r}")
    return found


def _check_state(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], strict: bool) -> None:
    missing, further = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or (strict and further):
        some, others = (", ".join(shortened(name, 100) for name in names[:3]) for names in (missing, further))
        raise WeightsMismatchError(
            f"model.safetensors is not of the model that config.json describes: {len(missing)} tensors"
            f" missing ({some}), {len(further)} unknown ({others}). Use the files of one model"
        )
    for name, tensor in expected.items():
        found, floating = state[name], tensor.is_floating_point()
        if tensor.shape == found.shape and floating == found.is_floating_point():
            continue
        if tensor.shape != found.shape:
            wanted, got = f"shape {tuple(tensor.shape)}", shown(tuple(found.shape))
        else:
            wanted, got = "a floating type" if floating else "whole numbers", found.dtype
        raise WeightsMismatchError(
            f"{name}: expected {wanted} by config.json, got {got} in model.safetensors. Use the files of one model"
        )
