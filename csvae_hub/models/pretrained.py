"""Weights in and out of a folder or a Hub repo, for every model of the family."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from csvae_hub import hub
from csvae_hub.backbones import find_backbone
from csvae_hub.config import FORMAT_VERSION, ModelConfig, from_dict, shortened, shown, to_dict
from csvae_hub.errors import ConfigError, WeightsError, WeightsMismatchError, did_you_mean
from csvae_hub.images import Preprocessor
from csvae_hub.models.skeleton import skeleton
from csvae_hub.safe_files import inside
from csvae_hub.tensor_file import TensorFile

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo


class Pretrained(nn.Module):
    """A module made of a `ModelConfig` and a `Preprocessor`, which are saved beside its weights."""

    name: str
    """The value of `ModelConfig.model` that stands for this class; an abstract class has none."""

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
        """Writes config.json, model.safetensors and preprocessor.json, and further JSON files by name.

        Args:
            folder: made where missing; each file is replaced whole.
            dtype: torch's type or its name; "float16" halves the file. By default the parameters' own.
            extra: more files, such as {"training.json": {...}}.
        """
        from csvae_hub import __version__

        config = {"format_version": FORMAT_VERSION, "csvae_hub_version": __version__, **to_dict(self.config)}
        floating = None if dtype is None else _dtype(dtype)
        state = {
            k: v.detach().to("cpu", floating if floating is not None and v.is_floating_point() else v.dtype)
            for k, v in self.state_dict().items()
        }
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

        A model class takes its own weights only; `AttributeModel.from_pretrained` gives the model that config.json
        names, whichever of the family it is.

        Args:
            name_or_path: an existing folder, else a name that `list_models(pretrained=True)` gives, else a Hub repo
                such as "user/name". The prefixes `local-dir:` and `hf-hub:` force the first and the last.
            revision: branch, tag or commit of a Hub repo.
            token: for private and gated Hub repos; by default the one stored by `hf auth login`.
            cache_dir: where downloads are kept; by default the Hub's own cache.
            force_download: download again what is in the cache.
            local_files_only: use the cache and no network. Folders and packaged models need none: with them, this
                and the three arguments above mean nothing.
            strict: refuse weights with tensors that the model doesn't know; missing ones are always refused.
            device: by default CUDA where there is one, else the CPU.
            dtype: torch's type or its name; by default float32.

        Raises:
            UnknownModelError: no such folder, packaged name or Hub repo.
            HubError: the Hub repo can't be read; the subclass says why.
            WeightsError: a file is missing, corrupt or doesn't fit; the subclass says which.
            ConfigError: config.json holds what can't be, or names another model.
            ValueError: a revision of a folder or packaged model, or a dtype that is no floating type.
        """
        floating = _dtype(dtype)
        folder = hub.resolve(
            name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        config_json = hub.read_config(folder)
        config = from_dict(ModelConfig, {k: v for k, v in config_json.items() if k not in _HEADER})
        preprocessor = from_dict(Preprocessor, hub.read_json(inside(folder, hub.PREPROCESSOR), hub.MAX_CONFIG))
        concrete = cls._named(config.model, folder)
        find_backbone(config.backbone)  # imports its package here, where no mode of `skeleton` reaches its own tensors
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        file = hub.open_weights(folder)
        try:
            model = skeleton(lambda: concrete(config, preprocessor), file.numbers, len(file.shapes))
            expected: dict[str, Tensor] = model.state_dict(keep_vars=True)
            _check_state(expected, file, strict)
        except WeightsMismatchError as error:
            raise WeightsMismatchError(f"{folder}: {error}") from None
        dtypes = {k: floating if v.is_floating_point() else v.dtype for k, v in expected.items()}
        for name, tensor in file.read(expected, place, dtypes).items():
            expected[name].data = tensor  # not a copy of it
        model._folder = folder.absolute()
        return model.eval()

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
        """Sends the model to a Hub repo in one commit: weights, config, preprocessor, and what is known of them.

        training.json, evaluation.json, samples.png and README.md of the folder that the model was loaded from go along
        as long as the weights are those of that folder; the very file is sent then. Without a README.md, a model card
        is made from the JSON files.

        Args:
            repo_id: "user/name"; made where it is missing.
            private: of a repo that is made now; by default as the account has it.
            token: with the right to write; by default the one stored by `hf auth login`.
            branch: made where it is missing; by default `main`.
            create_pr: open a pull request instead of committing.
            commit_message: its first line.
            overwrite_card: replace a card that was written or edited in the repo by hand; it stays otherwise.
            tag: a name for this version, such as "v1.0".
            folder: where training.json and so on are, if not where the model came from.
            dtype: other than that of the file or, once the weights were changed, of the parameters.
            card_fields: for the card's front matter: `license`, `license_name`, `license_link`, `datasets`, …

        Raises:
            HubTokenError: the token is missing, wrong, or may not write there.
            HubConnectionError: the Hub can't be reached or breaks off.
            HubError: the Hub refuses, the tag is taken, or a public repo exists where a private one was asked for.
            CardError: the front matter of README.md can't be read.
            ValueError: a tag together with `create_pr`, or a card that the Hub finds invalid.
        """
        from csvae_hub.card import CARD, make_card
        from csvae_hub.hub_client import upload

        with tempfile.TemporaryDirectory() as temporary:
            staged = Path(temporary)
            unchanged = self._folder is not None and self._is_of(self._folder)
            self.save_pretrained(staged, dtype=dtype)
            if unchanged and self._folder is not None and dtype is None:
                shutil.copyfile(inside(self._folder, hub.WEIGHTS), staged / hub.WEIGHTS)
            source = folder if folder is not None else self._folder if unchanged else None
            if source is not None:
                for path in (inside(source, name) for name in _COMPANIONS):
                    if path.is_file():
                        shutil.copyfile(path, staged / path.name)
            (staged / CARD).write_text(make_card(staged, repo_id, card_fields), encoding="utf-8")
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
        """Whether the weights are those of a folder, but for the type that they were loaded in."""
        mine = self.state_dict()
        try:
            file = hub.open_weights(folder)
            if mine.keys() - file.shapes.keys():
                return False
            theirs = file.read(mine, "cpu", {name: tensor.dtype for name, tensor in mine.items()})
            return all(torch.equal(tensor.cpu(), theirs[name]) for name, tensor in mine.items())
        except WeightsError:
            return False

    @classmethod
    def _named(cls, name: str, folder: Path) -> type[Self]:
        """The class of this one and those below it that stands for a name."""
        classes: dict[str, type[Any]] = {
            c.name: c for c in (cls, *_below(cls)) if not inspect.isabstract(c) and hasattr(c, "name")
        }
        if name not in classes:
            remedy = did_you_mean(name, classes) or " Use the class of that name, or AttributeModel."
            raise ConfigError(f"{folder}: model: expected {' or '.join(sorted(classes))}, got {shown(name)}:{remedy}")
        return classes[name]


def _below(cls: type[Any]) -> Iterator[type[Any]]:
    for child in cls.__subclasses__():
        yield child
        yield from _below(child)


_HEADER = ("format_version", "csvae_hub_version")
_COMPANIONS = ("training.json", "evaluation.json", "samples.png", "README.md")


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype: expected a floating type such as 'float32' or 'bfloat16', got {dtype!r}")
    return found


def _check_state(expected: Mapping[str, Tensor], file: TensorFile, strict: bool) -> None:
    missing, further = sorted(expected.keys() - file.shapes.keys()), sorted(file.shapes.keys() - expected.keys())
    if missing or (strict and further):
        raise WeightsMismatchError(
            f"model.safetensors is not of the model that config.json describes: {len(missing)} tensors"
            f" missing ({_some(missing)}), {len(further)} unknown ({_some(further)})."
            " Use the files of one model"
        )
    for name, tensor in expected.items():
        if tuple(tensor.shape) != file.shapes[name]:
            raise WeightsMismatchError(
                f"{name}: expected shape {tuple(tensor.shape)} by config.json,"
                f" got {shown(file.shapes[name])} in model.safetensors. Use the files of one model"
            )
        if tensor.is_floating_point() != file.dtypes[name].is_floating_point:
            kind = "a floating type" if tensor.is_floating_point() else "whole numbers"
            raise WeightsMismatchError(
                f"{name}: expected {kind} by config.json, got {file.dtypes[name]} in model.safetensors."
                " Use the files of one model"
            )


def _some(names: list[str]) -> str:
    """The first three names."""
    return ", ".join(shortened(name, 100) for name in names[:3])
