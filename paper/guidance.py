"""How strongly pictures should follow the prompt: detection before anything is forgotten, for several guidances.

Sampled at a seed that no result uses. The concepts are the reported ones, for the generator draws no others.
"""

import pandas as pd

from cliperase.settings import read_params, section
from paper.diffusion import create_detector, detection_rates, generate, load_pipeline
from paper.pretraining import fix_threads
from paper.tables import publish_table

GUIDANCES, IMAGES, SEED = (1.0, 1.5, 2.0, 2.5, 3.0), 30, 100
MODELS = "artifacts/icons/diffusion"


def main():
    fix_threads()
    params = read_params()
    settings = section(params, "diffusion")
    pipeline = load_pipeline(f"{MODELS}/generator")
    detect = create_detector(f"{MODELS}/detector", settings["concepts"])
    prompts = [settings["prompt"].format(name) for name in settings["concepts"]]
    lines = []
    for guidance in GUIDANCES:
        found = generate(pipeline, prompts, IMAGES, SEED, settings["steps"], guidance, settings["batch"])
        rates = detection_rates(detect, found).diagonal().tolist()
        line = {"guidance": guidance, "mean": sum(rates) / len(rates), "lowest": min(rates)}
        lines.append(line | dict(zip(settings["concepts"], rates, strict=True)))
    table = pd.DataFrame(lines).assign(seed=SEED, pictures=IMAGES, provenance=params["provenance"])
    publish_table(table, "tuning_guidance", "figures")


if __name__ == "__main__":
    main()
