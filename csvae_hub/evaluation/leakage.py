"""Leakage: fresh probes read the attributes from the latents, since a fooled adversary proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from csvae_hub.classifier import masked_cross_entropy
from csvae_hub.errors import require
from csvae_hub.evaluation.metrics import bootstrap_auc, mean, one_sided, roc_auc
from csvae_hub.models import Latents

Scores = NDArray[np.float64]
EPOCHS, PATIENCE = 20, 5
"""Of an MLP: at most so many epochs, and so many without a better one."""


def leakage(
    latents: Sequence[Latents],
    labels: Sequence[NDArray[np.float32]],
    labelled: Sequence[Latents] | None = None,
    *,
    seed: int = 0,
    resamples: int = 200,
) -> dict[str, Any]:
    """ROC AUC of fresh probes that read the attributes from the latents: 0.5 is chance, 1 is certain.

    The probes, a logistic regression and an MLP of two hidden layers, are trained on the first split and measured on
    the third; the MLP stops, for each attribute, at the epoch that is best on the second. Codes are whitened before.

    Args:
        latents: E[z | x] and w of train, valid and test, as `encode_data` gives them.
        labels: the attributes (N, k) of the three, in the latents' order, NaN where missing.
        labelled: the latents of the same examples encoded with their labels, for `w_own_labelled`.
        seed: of the MLP and of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        `z`: probes on E[z | x]; `w_own`: attribute i from w_i of q(w | x, y) with y inferred by q(y | x), so that it
        can't be better than that classifier; `w_own_labelled`: the same with y the label, where given. Each by kind
        of probe (`logistic`, `mlp`): `mean` and `max` (`min` for w) over the attributes, and for each attribute `auc`
        with a 95 % interval `low` to `high`, or `auc` None with a `reason`. `w_others`: attribute i from w_j, mean
        over j ≠ i, by kind: `mean` and, for each attribute, the mean `auc` and the greatest, `max`, with its
        `subspace`. Attributes that go together in the data (beards and Male) are read from one another's subspaces
        even by a perfect model. For a model without subspaces the three are None, and `reason` says so.

    Raises:
        MissingExtraError: scikit-learn is missing.
        ValueError: the three splits don't agree in shape.
    """
    names = latents[0].attributes
    train, valid, test = labels
    for part, y in zip(latents, labels, strict=True):
        if y.shape != (len(part), len(names)):
            raise ValueError(f"labels: expected shape {(len(part), len(names))}, one row a latent, got {y.shape}")
    reasons = [_reason(train[:, i], test[:, i]) for i in range(len(names))]

    def probes(codes: list[Tensor], width: int) -> dict[str, Scores]:
        return {
            "logistic": logistic_probe(codes[0], train, codes[2]),
            "mlp": mlp_probe(codes[0], train, codes[1], valid, codes[2], seed=seed, width=width),
        }

    def by_attribute(reasons: list[str | None], measured: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
        found = {
            name: measured(i) if reasons[i] is None else {"auc": None, "reason": reasons[i]}
            for i, name in enumerate(names)
        }
        return {"mean": mean(entry["auc"] for entry in found.values()), "attributes": found}

    def table(extreme: Callable[..., Any], column: Callable[[int], NDArray[np.float64]]) -> dict[str, Any]:
        def measured(i: int) -> dict[str, Any]:
            low, high = bootstrap_auc(column(i), test[:, i], resamples=resamples, seed=seed)
            return {"auc": roc_auc(column(i), test[:, i]), "low": low, "high": high}

        found = by_attribute(reasons, measured)
        known = (entry["auc"] for entry in found["attributes"].values() if entry["auc"] is not None)
        return {**found, extreme.__name__: extreme(known, default=None)}

    def own(parts: Sequence[Latents]) -> tuple[dict[str, Scores], dict[str, Any]]:
        found = probes(whitened([part.w.transpose(0, 1) for part in parts]), width=64)
        return found, {kind: table(min, lambda i, s=scores: s[i, :, i]) for kind, scores in found.items()}

    def others(scores: Scores) -> dict[str, Any]:
        def measured(i: int) -> dict[str, Any]:
            values = {names[j]: roc_auc(scores[j, :, i], test[:, i]) for j in range(len(names)) if j != i}
            subspace = max(values, key=lambda j: values[j])
            return {"auc": mean(values.values()), "max": values[subspace], "subspace": subspace}

        return by_attribute(["the model has one attribute"] if len(names) == 1 else reasons, measured)

    z = probes(whitened([part.z.flatten(1)[None] for part in latents]), width=256)
    result: dict[str, Any] = {"z": {kind: table(max, lambda i, s=scores: s[0, :, i]) for kind, scores in z.items()}}
    if latents[0].w.shape[-1] == 0:
        without = dict.fromkeys(("w_own", "w_others", "w_own_labelled"))
        return {**result, **without, "reason": "the model has no subspaces: there is no w to read from"}
    w, result["w_own"] = own(latents)
    result["w_others"] = {kind: others(scores) for kind, scores in w.items()}
    if labelled is not None:
        result["w_own_labelled"] = own(labelled)[1]
    return result


def logistic_probe(train_x: Tensor, train_y: NDArray[np.float32], test_x: Tensor) -> Scores:
    """Scores (G, M, k) on test of logistic regressions, one for each of G codes and k attributes.

    Takes whitened codes (G, N, D) and (G, M, D), and attributes (N, k), NaN where missing. A column of one class gets
    scores of zero.
    """
    linear_model = require("sklearn.linear_model", "eval")
    scores = np.zeros((len(test_x), test_x.shape[1], train_y.shape[1]))
    for group in range(len(train_x)):
        for column, y in enumerate(train_y.T):
            known = ~np.isnan(y)
            if len(np.unique(y[known])) == 2:
                probe = linear_model.LogisticRegression(solver="newton-cholesky", max_iter=200)
                probe.fit(train_x[group].numpy()[known], y[known])
                scores[group, :, column] = probe.decision_function(test_x[group].numpy())
    return scores


def mlp_probe(
    train_x: Tensor,
    train_y: NDArray[np.float32],
    valid_x: Tensor,
    valid_y: NDArray[np.float32],
    test_x: Tensor,
    *,
    seed: int = 0,
    width: int = 256,
) -> Scores:
    """Scores (G, M, k) on test of G MLPs trained side by side, each with one output an attribute.

    For each code and attribute the scores are those of the epoch with the greatest ROC AUC on valid; training ends
    after `PATIENCE` epochs without a better one. The caller's random state is kept.

    Takes whitened codes (G, N, D), (G, V, D) and (G, M, D), and attributes (N, k) and (V, k), NaN where missing. Both
    hidden layers have the width.
    """
    groups, n, size = train_x.shape
    labels = torch.from_numpy(train_y)
    outputs = labels.shape[1]

    def side_by_side(inputs: int, outputs: int) -> nn.Module:
        return nn.Conv1d(groups * inputs, groups * outputs, 1, groups=groups)

    def logits_of(x: Tensor) -> Tensor:
        return rearrange(probe(rearrange(x, "g b d -> (g d) b")), "(g k) b -> g b k", g=groups)

    best = np.full((groups, outputs), -np.inf)
    scores = np.zeros((groups, test_x.shape[1], outputs))
    since = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, second, last = side_by_side(size, width), side_by_side(width, width), side_by_side(width, outputs)
        probe = nn.Sequential(first, nn.ReLU(), nn.Dropout(0.2), second, nn.ReLU(), last)
        optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-3, weight_decay=1e-2)
        for _ in range(EPOCHS):
            probe.train()
            for rows in torch.randperm(n).split(256):
                logits = logits_of(train_x[:, rows])
                loss = groups * masked_cross_entropy(logits, labels[rows].expand_as(logits))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            probe.eval()
            with torch.no_grad():
                on_valid, on_test = logits_of(valid_x).numpy(), logits_of(test_x).double().numpy()
            since += 1
            for group, column in np.ndindex(*best.shape):
                auc = roc_auc(on_valid[group, :, column], valid_y[:, column])
                if np.isnan(auc) or auc > best[group, column]:  # one class in valid: the last epoch counts
                    scores[group, :, column] = on_test[group, :, column]
                if auc > best[group, column]:
                    best[group, column], since = auc, 0
            if since >= PATIENCE:
                break
    return scores


def whitened(splits: list[Tensor]) -> list[Tensor]:
    """Codes (G, N, D) of each split, turned so that those of the first have mean 0, variance 1 and no correlation.

    A network trained for a few epochs reads large directions first; a code could hide information in small ones.
    Directions with less than 1e-7 of the greatest variance, constant columns among them, become zero.
    """
    first = splits[0].double()
    loc, scale = first.mean(1, keepdim=True), first.std(1, keepdim=True, correction=0).clamp(min=1e-6)
    scaled = (first - loc) / scale
    values, vectors = torch.linalg.eigh(scaled.mT @ scaled / scaled.shape[1])
    kept = values > 1e-7 * values.amax(-1, keepdim=True).clamp(min=1e-30)
    turn = vectors * torch.where(kept, values.clamp(min=1e-30).rsqrt(), torch.zeros_like(values)).unsqueeze(-2)
    return [((part.double() - loc) / scale @ turn).float().contiguous() for part in splits]


def _reason(train: NDArray[np.float32], test: NDArray[np.float32]) -> str | None:
    held = {name: one_sided(labels) for name, labels in (("train", train), ("test", test))}
    return next((f"the {name} split has {classes}" for name, classes in held.items() if classes), None)
