"""Text-to-image: put an unlearned text encoder into a Stable Diffusion pipeline, generate, count what is seen.

The pipeline is any `diffusers.StableDiffusionPipeline`, from a hub name or a folder; the small one of the `icons`
profile is made by `generator.py`. The detector is any model of `encoders.load_model`, used zero-shot among the
prompted concepts, or an object detector of `transformers`, with classes of its own or by the concepts' names.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from cliperase.data.pairs import load_pairs
from cliperase.data.templates import PROMPT
from cliperase.errors import CliperaseError, reason_of
from cliperase.memory import reset_peak
from cliperase.metrics.encode import encode_images, encode_texts
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.models.text_encoder import check_tokenizer, to_transformers
from paper.rates import DRAWN, detection_rates, rate_metrics
from paper.results import rows_of
from paper.runs import Bench, Place
from paper.store import fingerprint

SHAPE = {  # what must agree between a pipeline's text encoder and the CLIP that replaces it
    "hidden_size": "text states of width",
    "num_hidden_layers": "a number of text layers of",  # Stable Diffusion 2 leaves the last one of its CLIP out
    "max_position_embeddings": "a context length of",
    "hidden_act": "the activation",
}
SPLIT = "generated"  # these pictures are of no data set


def load_pipeline(source, device=None):
    """A Stable Diffusion pipeline from a folder or a hub name, in float32, with a tokenizer that is whole."""
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
    return pipeline.to(device or pick_device(), torch.float32)


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


@dataclass(frozen=True)
class DrawnPlace(Place):
    """A place where runs are measured by what a generator draws. `asked`: settings for `Drawing`, as JSON."""

    entry: ClassVar[str] = "paper/diffusion.py"
    asked: str = "{}"

    def bench(self):
        return DrawnBench.load(self)

    def identity(self):
        return [*super().identity(), self.asked, *self.contents]

    @cached_property
    def contents(self):
        """Hashes of the generator and the detector, where they are folders."""
        asked = json.loads(self.asked)
        return [fingerprint(asked[name]) for name in ("pipeline", "detector")]


class Drawing:
    """The generator and the detector, loaded once, and how pictures are drawn."""

    def __init__(self, asked):
        """`asked`: the experiment, or what has those of its settings that are in `paper.code.DRAWING`."""
        self.pipeline, self.concepts, self.images = load_pipeline(asked.pipeline), asked.concepts, asked.images
        self.detect = create_detector(asked.detector, asked.concepts, asked.threshold)
        self.prompts = [asked.prompt.format(name) for name in asked.concepts]
        self.sampling = {"steps": asked.steps, "guidance": asked.guidance, "batch_size": asked.batch}

    def pictures(self, model, seed, images=0):
        """What is drawn when `model` reads: (C, images, 3, H, W), as many of each concept as are measured, or fewer."""
        swap_text_encoder(self.pipeline, model)
        return generate(self.pipeline, self.prompts, images or self.images, seed, **self.sampling)

    def rates(self, model, seed):
        """(C, C), see `detection_rates`."""
        return detection_rates(self.detect, self.pictures(model, seed))


@dataclass
class DrawnBench(Bench):
    """A bench that lets an unlearned text encoder read for the generator, and counts what is drawn."""

    known_rates: dict[int, torch.Tensor] = field(default_factory=dict)  # of the original, by the seed of sampling

    @cached_property
    def drawing(self):
        return Drawing(SimpleNamespace(**json.loads(self.place.asked)))

    def rows(self, run):
        """The rates of the pictures of one run, and what its model names of the validation images."""
        reset_peak()
        model, history, seconds = self.made(run)
        before = self.original_rates(run)
        rates = self.drawing.rates(model, run.seed) if history else before
        found, known = (rate_metrics(each, self.drawing.concepts, run.concept) for each in (rates, before))
        found["selection_score"], about = DRAWN.score(found, known), self.about_run(run)
        named = self.selection_metrics(run, model, history) if history else self.measure(model, "validation", run)
        del named["selection_score"]  # settings are chosen by what is drawn
        each = {SPLIT: found, "validation": named}
        return [row for split, metrics in each.items() for row in rows_of({**about, "split": split}, metrics, seconds)]

    def original_rates(self, run):
        """What the original draws with the noise of a run's seed; many runs have it in common."""
        if run.seed not in self.known_rates:
            self.known_rates[run.seed] = self.drawing.rates(self.original(run), run.seed)
        return self.known_rates[run.seed]

    def shown(self, runs, count):
        """{name: (C, count, H, W, 3)}: the first pictures of each concept, for the original and each of `runs`."""
        found = {}
        for run in runs:
            name = run.row if run.method == "original" else f"{run.row}/{run.concept}"
            if name not in found:
                pictures = self.drawing.pictures(self.made(run)[0], run.seed, count)
                found[name] = pictures.permute(0, 1, 3, 4, 2).numpy()
        return found


def detector_rows(bench, pictures):
    """How often the detector is right about test pictures that were drawn, not generated: rows of each data set."""
    rows, detect, concepts = [], bench.drawing.detect, bench.drawing.concepts
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
        rows += rows_of({**bench.about, **run, "dataset": Path(source).name}, metrics)
    return rows
