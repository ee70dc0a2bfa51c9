"""Trains a CSVAE on drawn faces in a plain loop: the objective, an optimiser for each minimisation, no trainer."""

import argparse

import torch
from torch.utils.data import DataLoader

from csvae_hub.data import SyntheticFaces
from csvae_hub.models import AttributeModel, create_model
from csvae_hub.training import Objective, load_recipe


def train(faces: int = 5000, epochs: int = 8) -> AttributeModel:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recipe, data = load_recipe("paper-faces"), SyntheticFaces(faces, image_size=32)
    objective = Objective(create_model(recipe.model), recipe.objective).to(device)
    optimizer = torch.optim.Adam(objective.generative_parameters(), 2e-3)
    others = [torch.optim.Adam(game.parameters, 1e-3) for game in objective.minimisations]  # here: the adversary's
    for epoch in range(epochs):
        for x, y in DataLoader(data, 64, shuffle=True, drop_last=True):
            loss, step = objective.generative_step(x.to(device), y.to(device))  # reaches no parameter of the others
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            for game, other in zip(objective.minimisations, others, strict=True):
                for term in game.losses(step):
                    (game.weight * term).backward()
                    other.step()
                    other.zero_grad()
        print(f"epoch {epoch + 1}:", ", ".join(f"{name} {term.mean():.4g}" for name, term in step.terms.items()))
    objective.model.finalize((x.to(device), y.to(device)) for x, y in data.batches(256))  # class means of w
    return objective.model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", required=True, help="the weights folder")
    output = parser.parse_args().output
    train().save_pretrained(output)
