"""Text-to-image: put an unlearned text encoder into a Stable Diffusion pipeline, generate, count what is seen.

The pipeline is any `diffusers.StableDiffusionPipeline`, from a hub name or a folder; the small one of the `icons`
profile is made by `generator.py`. The detector is any model of `encoders.load_model`, used zero-shot among the
prompted concepts, or an object detector of `transformers`, with classes of its own or by the concepts' names.
"""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm import tqdm

from cliperase.data.pairs import load_pairs
from cliperase.errors import CliperaseError, reason_of
from cliperase.memory import reset_peak
from cliperase.metrics.encode import encode_images, encode_texts
from cliperase.metrics.tasks import PROMPT
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.models.text_encoder import check_tokenizer, to_transformers
from paper.pretraining import fix_threads
from paper.results import COLUMNS, rows_of
from paper.runs import Bench, Run

SHAPE = {  # what must agree between a pipeline's text encoder and the CLIP that replaces it
    "hidden_size": "text states of width",
    "num_hidden_layers": "a number of text layers of",  # Stable Diffusion 2 leaves the last one of its CLIP out
    "max_position_embeddings": "a context length of",
    "hidden_act": "the activation",
}
SPLIT = "generated"  # these pictures are of no data set


def load_pipeline(source, device=None):
    """A Stable Diffusion pipeline from a folder or a hub name, with a tokenizer that is whole."""
    import diffusers
    import transformers

    from paper.generator import PixelAutoencoder

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()  # it warns of any autoencoder that is not its own
    index, own = Path(source) / "model_index.json", {}
    if index.is_file() and json.loads(index.read_text()).get("vae", [""])[0] == "paper":
        own = {"vae": PixelAutoencoder()}
    try:
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
            str(source), safety_checker=None, trust_remote_code=False, **own
        )
    except Exception as error:  # diffusers, transformers, the hub and safetensors each raise their own
        raise CliperaseError(
            f"pipeline {str(source)!r} cannot be loaded ({reason_of(error)}); give a whole one"
        ) from None
    check_tokenizer(pipeline.tokenizer, f"of pipeline {str(source)!r}")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device or pick_device())


def swap_text_encoder(pipeline, model):
    """Let the open_clip `model` read the prompts of `pipeline`, in place. Returns the encoder that was there."""
    before, after = pipeline.text_encoder, to_transformers(model)
    for name, said in SHAPE.items():
        wanted, found = getattr(before.config, name), getattr(after.config, name)
        if wanted != found:
            raise CliperaseError(
                f"the pipeline was trained with {said} {wanted}, this model has {found}; "
                "unlearn the CLIP that the pipeline was built on (ViT-L/14 for Stable Diffusion 1)"
            )
    pipeline.text_encoder = after.to(device=before.device, dtype=before.dtype)
    return before


def generate(pipeline, prompts, images, seed=0, steps=20, guidance=3.0, batch_size=50):
    """`images` pictures of each of P prompts: (P, images, 3, H, W) uint8.

    The first noise depends on the prompt's place, the picture's number and the seed only: it is the same for every text
    encoder, so that pictures before and after can be laid side by side. A scheduler that adds noise on its way, unlike
    DDIM, draws it for each batch of `batch_size`.
    """
    shape = (images, pipeline.unet.config.in_channels, *2 * (pipeline.unet.config.sample_size,))
    streams = [torch.Generator().manual_seed(1000 * seed + place) for place in range(len(prompts))]
    noise = torch.cat([torch.randn(shape, generator=stream) for stream in streams])
    asked, pictures = [prompt for prompt in prompts for _ in range(images)], []
    for start in tqdm(range(0, len(asked), batch_size), desc="generate", leave=False):
        found = pipeline(
            asked[start : start + batch_size],
            num_inference_steps=steps,
            guidance_scale=guidance,
            latents=noise[start : start + batch_size].to(pipeline.device, pipeline.unet.dtype),
            generator=torch.Generator(pipeline.device).manual_seed(seed),
            output_type="np",
        ).images
        pictures.append(torch.from_numpy((255 * np.asarray(found)).round().astype(np.uint8)).permute(0, 3, 1, 2))
    pictures = torch.cat(pictures)
    return pictures.view(len(prompts), images, *pictures.shape[1:])


class ZeroShotDetector:
    """Which of the `concepts` a picture shows, by an image-text model that had no part in the unlearning."""

    def __init__(self, model, concepts):
        self.model, self.texts = model, encode_texts(model, [PROMPT.format(name) for name in concepts])

    def __call__(self, images):
        """(N, 3, H, W) uint8 -> (N, C) bool, one true a row: the nearest concept."""
        nearest = (encode_images(self.model, images) @ self.texts.T).argmax(dim=1)
        return F.one_hot(nearest, len(self.texts)).bool()


class ObjectDetector:
    """Which of the `concepts` an object detector of `transformers` finds, with at least `threshold` confidence.

    `named`: it has no classes of its own and is asked for the concepts by name, as OWL-ViT is.
    """

    def __init__(self, source, concepts, threshold=0.5, named=False):
        from transformers import pipeline

        self.concepts, self.threshold = list(concepts), threshold
        self.asked = {"candidate_labels": self.concepts} if named else {}
        try:
            kind = "zero-shot-object-detection" if named else "object-detection"
            self.find = pipeline(kind, model=source, trust_remote_code=False)
        except Exception as error:
            raise CliperaseError(f"detector {source!r} cannot be loaded ({reason_of(error)})") from None
        known = set(self.concepts if named else self.find.model.config.label2id)
        unknown = [name for name in concepts if name not in known]
        if unknown:
            raise CliperaseError(f"detector {source!r} knows no {unknown[0]!r}; it knows {', '.join(sorted(known))}")

    def __call__(self, images):
        """(N, 3, H, W) uint8 -> (N, C) bool: a picture may show several, or none."""
        from PIL import Image

        rows = []
        for image in images:
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            found = self.find(picture, threshold=self.threshold, **self.asked)
            labels = {each["label"] for each in found}
            rows.append([name in labels for name in self.concepts])
        return torch.tensor(rows)


def create_detector(source, concepts, threshold=0.5):
    """A detector by its name: an object detector of transformers, or a model of `load_model`.

    `coco:<name or folder>` has classes of its own, `open:<name or folder>` is asked for the concepts by name.
    """
    kind, _, name = str(source).partition(":")
    if kind in ("coco", "open"):
        return ObjectDetector(name, concepts, threshold, named=kind == "open")
    return ZeroShotDetector(load_model(source, pick_device()), concepts)


def run_diffusion(settings, profile, data, model_folder):
    """(rows for the table, sample grids for the picture): every row of the experiment, every seed.

    A grid (C, `shown`, H, W, 3) holds the first pictures of each concept, the seeds in turn. `settings`: the
    experiment, a `paper.plans.diffusion.Diffusion`. `data` and `model_folder`: what is unlearned.
    """
    fix_threads()
    pipeline, concepts = load_pipeline(settings.pipeline), settings.concepts
    detect = create_detector(settings.detector, concepts, settings.threshold)
    bench = Bench.load(settings.place(profile, data, model_folder, ("validation",)))
    prompts = [settings.prompt.format(name) for name in concepts]
    sampling = {name: getattr(settings, name) for name in ("images", "steps", "guidance")}
    sampling["batch_size"] = settings.batch
    rows, grids = detector_rows(detect, concepts, settings.measured_on, bench.about), {}

    def record(method, forgotten, seed, seconds=0.0):
        found = generate(pipeline, prompts, seed=seed, **sampling)
        rates = detection_rates(detect, found)
        for concept in forgotten:
            about = {**bench.about, "experiment": "diffusion", "method": method, "concept": concept}
            about |= {"seed": str(seed), "split": SPLIT}
            rows.extend(rows_of(about, rate_metrics(rates, concepts, concept), seconds))
        name = method if method == "original" else f"{method}/{forgotten[0]}"
        grids.setdefault(name, []).append(found[:, : settings.shown].permute(0, 1, 3, 4, 2))

    for seed in profile.seeds:
        reader = load_model(bench.place.model, pick_device())
        swap_text_encoder(pipeline, reader)
        record("original", settings.forgotten, seed)
        for row in settings.methods:
            for concept in settings.forgotten:
                run = Run("diffusion", row, concept, {"concept": concept}, seed, **settings.configured(profile, row))
                reset_peak()
                start = time.perf_counter()
                model, _ = bench.unlearn(run)
                seconds = round(time.perf_counter() - start, 2)
                swap_text_encoder(pipeline, model)
                record(row, [concept], seed, seconds)
    in_turn = {name: torch.stack(of_seeds, dim=2).flatten(1, 2) for name, of_seeds in grids.items()}
    return pd.DataFrame(rows)[COLUMNS], {name: grid[:, : settings.shown].numpy() for name, grid in in_turn.items()}


def detection_rates(detect, pictures):
    """(P, C) percent of the pictures (P, images, 3, H, W) of each prompt in which each concept is detected."""
    return torch.stack([100 * detect(each).double().mean(dim=0) for each in pictures])


def detector_rows(detect, concepts, pictures, about):
    """How often the detector is right about test pictures that were drawn, not generated: rows of each data set."""
    rows = []
    for source in pictures:
        pairs = load_pairs(source, "test")
        unknown = [name for name in concepts if name not in pairs.class_names]
        if unknown:
            raise CliperaseError(f"data {str(source)!r} shows no {unknown[0]!r}; it cannot measure this detector")
        found = {name: 100 * detect(pairs.images[pairs.labels == pairs.class_names.index(name)])[:, place]
                 .double().mean().item() for place, name in enumerate(concepts)}  # fmt: skip
        metrics = {f"detector_accuracy@{name}": value for name, value in found.items()}
        metrics["detector_accuracy"] = sum(found.values()) / len(found)
        run = {"experiment": "diffusion", "method": "detector", "concept": "none", "seed": "0", "split": "test"}
        rows += rows_of({**about, **run, "dataset": Path(source).name}, metrics)
    return rows


def rate_metrics(rates, concepts, forgotten):
    """`detection_rate`: how often the forgotten concept is seen when it is asked for, in percent.

    `other_detection_rate`: the same of the other concepts, their mean; `detection_rate@<concept>`: of each.
    `false_detection_rate`: how often the forgotten concept is seen where something else was asked for.
    """
    own, place = rates.diagonal().tolist(), concepts.index(forgotten)
    others = [number for number in range(len(concepts)) if number != place]
    return {
        **{f"detection_rate@{name}": rate for name, rate in zip(concepts, own, strict=True)},
        "detection_rate": own[place],
        "other_detection_rate": sum(own[number] for number in others) / len(others),
        "false_detection_rate": rates[others, place].mean().item(),
    }
