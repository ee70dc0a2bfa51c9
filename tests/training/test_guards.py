"""Guards warn once, in words, of what goes wrong without an error, and are silent where nothing does."""

from __future__ import annotations

import json
import math

import pytest
import torch

from csvae_hub.data.base import AttributeData
from csvae_hub.distributions import attributes
from csvae_hub.errors import TrainingError
from csvae_hub.losses import cross_entropy
from csvae_hub.training import list_recipes, load_recipe
from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.guards import Guards, constant_answer, linear_leakage, watched
from csvae_hub.training.recipes import prepare
from csvae_hub.training.run_log import RunLog
from csvae_hub.training.trainer import Trainer

CHANCE, ENTROPY = 3 * math.log(2), 3 * math.log(2)
SOUND = {"kl_w.Smiling": 1.5, "adversary": 1.9, "negative_entropy": -1.9, "leakage": 0.2, "critic": 1.5}


def guards(patience=200):
    return Guards({"adversary": CHANCE, "critic": 1.7}, ENTROPY, patience)


def said(guard, *spans, every=50):
    """All warnings of spans of (batches, means or a function of the batch), one after the other."""
    found, batch = [], 0
    for batches, means in spans:
        for _ in range(batches // every):
            batch += every
            found += [(batch, *item) for item in guard.look(batch, means(batch) if callable(means) else means).items()]
    return found


# -- what they warn of --------------------------------------------------------------------------------------------

SILENT_FAILURES = {
    "Smiling collapsed": ({"kl_w.Smiling": 0.001}, r"^the subspace of Smiling has collapsed: .* Lower objective\.kl_w"),
    "adversary knows nothing": ({"adversary": 2.08}, r"^the adversary learns nothing: .* Raise trainer\.adversary_"),
    "adversary always wins": ({"negative_entropy": -0.01}, r"always wins: .* or fit a flow"),
    "critic always wins": ({"critic": 0.01}, r"^the critic always wins: .* Raise parts\.critic\.weight"),
    "critic knows nothing": (
        {"critic": 1.9},
        r"^the critic knows nothing: .*1\.9.*1\.7.* Lower trainer\.learning_rate",
    ),
}


@pytest.mark.parametrize("name", SILENT_FAILURES)
def test_a_state_that_lasts_is_warned_of_once_and_its_remedy_named(name):
    means, words = SILENT_FAILURES[name]
    ((batch, found, text),) = said(guards(), (300, SOUND), (1000, SOUND | means))
    assert found == name
    assert batch == 500  # it began at 300 and lasted for 200
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(text)


@pytest.mark.parametrize("name", SILENT_FAILURES)
def test_a_state_that_comes_and_goes_is_not(name):
    means = SILENT_FAILURES[name][0]
    assert said(guards(), *[(150, SOUND | means), (50, SOUND)] * 10) == []


def test_an_adversary_at_chance_is_right_where_z_says_nothing():
    assert said(guards(), (2000, SOUND | {"adversary": CHANCE, "leakage": 0.01})) == []


def test_leakage_that_rises_steadily_is_warned_of_once():
    def rises(batch):
        return SOUND | {"adversary": 2 - batch / 1000, "negative_entropy": -2 + batch / 1000}

    ((batch, name, text),) = said(guards(), (2000, rises))
    assert name == "leakage rises"
    assert batch >= 1000
    assert text.startswith("z tells more and more of the attributes: over 600 batches the adversary's loss fell from ")
    for constant in ("adversary", "negative_entropy"):
        assert said(guards(), (2000, lambda batch, constant=constant: rises(batch) | {constant: SOUND[constant]})) == []


def test_an_adversary_that_catches_up_while_z_tells_less_is_no_leakage_that_rises():
    def catches_up(batch):
        return SOUND | {"adversary": 2 - batch / 1000, "negative_entropy": -2 + batch / 1000, "leakage": 300 / batch}

    assert said(guards(), (1800, catches_up)) == []


def test_an_adversary_that_learns_at_the_start_is_no_leakage_that_rises():
    def learns(batch):
        left = math.exp(-batch / 150)
        return SOUND | {"adversary": 1 + left, "negative_entropy": -1 - left}

    assert said(guards(), (4000, learns)) == []


def test_terms_that_a_model_lacks_are_not_missed():
    assert said(guards(), (2000, {"loss": 1.0, "reconstruction": 1.0})) == []


# -- what they look at --------------------------------------------------------------------------------------------


def test_the_watched_kls_are_those_of_the_subspaces(build, batch):
    objective = build()
    x, y = batch(objective)
    step = objective.generative_step(x, y)[1]
    found = watched(step)
    assert list(found) == ["kl_w.Smiling", "kl_w.Hat", "kl_w.Young", "leakage"]
    torch.testing.assert_close(sum(found[f"kl_w.{n}"] for n in objective.model.attributes), step.terms["kl_w"].mean())
    assert not any(value.requires_grad for value in found.values())


def test_models_without_subspaces_or_adversary_have_less_to_watch(build, batch):
    for kind, names in (("vae", []), ("cond-vae", []), ("cond-vae-info", ["leakage"])):
        objective = build(kind)
        assert list(watched(objective.generative_step(*batch(objective))[1])) == names


def test_linear_leakage_is_zero_by_mean_and_what_a_linear_probe_explains():
    torch.manual_seed(0)
    y = torch.randint(2, (100, 128, 3)).float()
    z = torch.randn(100, 128, 16)
    nothing = torch.stack([linear_leakage(*pair) for pair in zip(z, y, strict=True)])
    assert abs(nothing.mean()) < 3 * nothing.std() / 10
    z[..., :3] += 2 * y  # a share of 4/4 / (4/4 + 1) of each one's variance
    half = torch.stack([linear_leakage(*pair) for pair in zip(z, y, strict=True)])
    assert half.mean().item() == pytest.approx(0.5, abs=0.02)
    assert linear_leakage(z[0], torch.ones(128, 3)).item() == 0.0


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("groups", [(), ((1, 2, 3),)])
def test_no_constant_answer_has_a_lower_loss(balanced, groups):
    torch.manual_seed(0)
    labels = torch.zeros(400, 4)
    labels[:, 0] = (torch.rand(400) < 0.3).float()
    labels[torch.arange(400), 1 + torch.multinomial(torch.tensor([0.2, 0.3, 0.5]), 400, replacement=True)] = 1.0
    labels[:20, 0] = torch.nan
    rate = labels.nanmean(0)
    base_rate = None
    if balanced:
        base_rate = rate.clone()
        base_rate[[i for group in groups for i in group]] *= 1.5
    loss = constant_answer(labels, groups, base_rate)["loss"]
    logits = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200)

    def others():
        optimizer.zero_grad()
        found = cross_entropy(attributes(logits.expand(400, -1), groups), labels, base_rate).mean()
        found.backward()
        return found

    optimizer.step(others)
    assert loss == pytest.approx(others().item(), abs=1e-3)


def test_a_critic_that_answers_nothing_has_the_loss_that_it_says(build, batch):
    objective = build(parts={"critic": {}})
    (game,) = [game for game in objective.minimisations if game.name == "critic"]
    critic = objective.parts[0]
    for parameter in critic.net.out.parameters():
        torch.nn.init.zeros_(parameter)
    critic.steps += 1  # no penalty of the gradient in this batch
    x, y = batch(objective, missing=0)
    loss = next(game.losses(objective.generative_step(x, y)[1]))
    assert loss.item() == pytest.approx(3.53 * math.log(2), abs=1e-5)  # with ½ for each attribute
    assert 2.3 * math.log(2) < game.chance < 3.53 * math.log(2)  # with the base rates


# -- in a run -----------------------------------------------------------------------------------------------------


def test_warnings_are_in_the_log_and_on_the_terminal_and_not_repeated_on_resuming(tmp_path, capsys):
    for first in (0, 600):
        log = RunLog(tmp_path, 10_000, guards=guards())
        with log:
            log.start(first)
            for batch in range(first + 50, first + 601, 50):
                log.write("batch", batch, 1, 8, {"loss": 1.0, "kl_w.Smiling": 0.0})
        said_there = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
        assert len(said_there) == (1 if first == 0 else 0)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (entry,) = [entry for entry in entries if entry["kind"] == "warning"]
    assert (entry["batch"], entry["name"]) == (250, "Smiling collapsed")
    assert entry["text"].startswith("the subspace of Smiling has collapsed")


def test_a_real_run_with_collapsed_subspaces_says_so(tmp_path, build, data, monkeypatch):
    monkeypatch.setattr("csvae_hub.training.trainer.LOG_EVERY", 10)
    objective = build(weights={"kl_w": 1e4}, residual=True)
    config = TrainerConfig(epochs=80, batch_size=20, learning_rate=0.01)
    Trainer(objective, config, data(), None, tmp_path, quiet=True).fit()
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    collapsed = [e["name"] for e in entries if e["kind"] == "warning" and "collapsed" in e["name"]]
    assert sorted(collapsed) == ["Hat collapsed", "Smiling collapsed", "Young collapsed"]


@pytest.mark.parametrize("name", list_recipes())
def test_the_guards_know_the_critic_and_the_adversary_of_every_recipe(name, build, data):
    recipe = load_recipe(name)
    objective = build(parts={part: {} for part in recipe.parts if part in ("critic", "balanced")})
    found = Guards.of(Trainer(objective, TrainerConfig(epochs=1000, batch_size=8), data(), quiet=True))
    assert found.patience == 500
    assert found.chances.keys() == {"adversary", *({"critic"} & recipe.parts.keys())}


def test_a_sound_run_is_warned_of_nothing(tmp_path):
    recipe = load_recipe("paper-swiss-roll", {"data.examples": "1024", "trainer.epochs": "60"})
    prepare(recipe, None, tmp_path, quiet=True).fit()
    assert '"warning"' not in (tmp_path / "log.jsonl").read_text()


# -- what is not finite -------------------------------------------------------------------------------------------


class Exploding(AttributeData):
    """Gives infinity for one of its files."""

    def batch(self, indices):
        x, y = super().batch(indices)
        rows = torch.as_tensor(indices)
        return torch.where((rows == 7).view(-1, *[1] * (x.ndim - 1)), torch.inf, x), y


def test_an_error_names_the_files_of_the_batch_and_the_log_has_all(tmp_path, build, data):
    found = data(64)
    exploding = Exploding(found.images, found.labels, found.attributes, [f"{i}.jpg" for i in range(64)])
    config = TrainerConfig(epochs=2, batch_size=8)
    with pytest.raises(TrainingError) as caught:
        Trainer(build(), config, exploding, None, tmp_path, quiet=True, checkpoint_minutes=0.0).fit()
    assert "reconstruction = " in str(caught.value)
    assert "7.jpg" in caught.value.examples
    assert len(caught.value.examples) == 8
    *_, entry = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert entry["kind"] == "error"
    assert entry["text"] == str(caught.value)
    assert entry["examples"] == list(caught.value.examples)
