"""Choose the strength of guidance: detection before unlearning, for several strengths.

The sampling seed is one that no result uses. The concepts are the reported ones, because the generator draws no others.
"""

import argparse
from pathlib import Path

import pandas as pd

from cliperase.errors import end_in_one_line
from paper.diffusion import Drawing, generate
from paper.experiments import experiment_of
from paper.params import read_profile
from paper.pretraining import fix_threads
from paper.rates import detection_rates
from paper.tables import publish_table

GUIDANCES, IMAGES, SEED = (1.0, 1.5, 2.0, 2.5, 3.0), 30, 100


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="icons")
    parser.add_argument("--publish-to", required=True, type=Path)
    arguments = parser.parse_args()
    fix_threads()
    profile = read_profile(arguments.profile)
    settings = experiment_of(profile, "diffusion")
    drawing = Drawing(settings)
    lines = []
    for guidance in GUIDANCES:
        found = generate(drawing.pipeline, drawing.prompts, IMAGES, SEED, settings.steps, guidance, settings.batch)
        rates = detection_rates(drawing.detect, found).diagonal().tolist()
        line = {"guidance": guidance, "mean": sum(rates) / len(rates), "lowest": min(rates)}
        lines.append(line | dict(zip(settings.concepts, rates, strict=True)))
    table = pd.DataFrame(lines).assign(seed=SEED, pictures=IMAGES, provenance=profile.provenance)
    publish_table(table, "guidance", arguments.publish_to)


if __name__ == "__main__":
    end_in_one_line(main)
