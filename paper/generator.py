"""A small text-to-image model, trained here: a Stable Diffusion pipeline of a few million parameters for pictograms.

Latent diffusion (Rombach et al. 2022) needs an autoencoder; pictures this small need none, and `PixelAutoencoder`
only folds 2×2 pixels into channels, without loss. Noise schedule: cosine (Nichol & Dhariwal 2021) that ends in pure
noise (Lin et al. 2024), because a background of one colour is the last thing that noise hides. The network predicts the
clean picture, as Salimans & Ho (2022) allow: to predict noise or velocity it must pass the noise of its input through
unchanged, which this few steps do not teach it, and what it fails to pass stays in the picture. Prompts are dropped at
random for classifier-free guidance (Ho & Salimans 2022).
"""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, DDIMScheduler, ModelMixin, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from pydantic import Field

from cliperase.checkpoints import remove_checkpoint
from cliperase.data.pairs import load_pairs
from cliperase.data.sampling import EpochSampler
from cliperase.data.templates import PROMPT
from cliperase.errors import CliperaseError
from cliperase.features import fingerprint
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.models.text_encoder import clip_tokenizer, to_transformers
from cliperase.settings import checked
from paper.pretraining import AveragedSettings, LossTraining, checkpoint_beside, fix_threads, train_averaged

FOLD = 2  # pixels folded into channels along each side
CHANNELS = (32, 64, 96)


class PixelAutoencoder(ModelMixin, ConfigMixin):
    """A pipeline's autoencoder that folds 2×2 pixels: (N, 3, H, W) in -1…1 <-> (N, 12, H/2, W/2), exactly."""

    @register_to_config
    def __init__(self, scaling_factor=1.0, latent_channels=3 * FOLD**2, block_out_channels=(1, FOLD)):
        super().__init__()  # the pipeline reads the folding off the number of blocks
        self.register_buffer("nothing", torch.zeros(1))  # diffusers asks a model for its device and type

    def encode(self, pixels):
        return F.pixel_unshuffle(pixels, FOLD)

    def decode(self, latents, return_dict=True, generator=None):
        pixels = F.pixel_shuffle(latents, FOLD)
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)


class GeneratorSettings(AveragedSettings):
    """Settings of `train_generator`."""

    batch: int = Field(default=64, ge=1)
    drop_prompt: float = Field(default=0.1, ge=0, le=1)  # share of the pictures that are trained without a prompt
    pad: Literal["<|endoftext|>", "!"] = "<|endoftext|>"  # what fills a prompt up, as in Stable Diffusion or open_clip
    evaluate_every: int = Field(default=200, ge=1)


def create_pipeline(model, image_size, pad="<|endoftext|>"):
    """An untrained pipeline for pictures of `image_size`, its text encoder that of the open_clip `model`.

    `pad`: the token that fills prompts up; the denoiser attends to its states.
    """
    if image_size % (FOLD * 2 ** (len(CHANNELS) - 1)):
        raise CliperaseError(f"image size {image_size} cannot be halved {len(CHANNELS)} times; give a multiple of 8")
    encoder = to_transformers(model)
    attention, plain = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")
    kinds = [plain, *[attention] * (len(CHANNELS) - 1)]  # attention is expensive at high resolution
    unet = UNet2DConditionModel(
        sample_size=image_size // FOLD,
        in_channels=3 * FOLD**2,
        out_channels=3 * FOLD**2,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=[down for down, _ in kinds],
        up_block_types=[up for _, up in reversed(kinds)],
        cross_attention_dim=encoder.config.hidden_size,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,  # the pipeline switches it off; thresholding does the same
        thresholding=True,  # guidance asks for more than black and white
        steps_offset=1,  # what the pipeline expects
    )
    return StableDiffusionPipeline(
        vae=PixelAutoencoder(),
        text_encoder=encoder,
        tokenizer=clip_tokenizer(encoder.config.max_position_embeddings, pad),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def text_states(pipeline, texts):
    """T prompts -> (T, context length, width): what the denoiser attends to."""
    tokens = pipeline.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return pipeline.text_encoder(tokens.to(pipeline.text_encoder.device))[0]


def train_generator(data, model_folder, output, settings):
    """Train a small pipeline on the pictures of `data`, prompted with their class, and save it as a folder.

    The text encoder is that of the CLIP in `model_folder` and stays as it is; `original` in the output is that CLIP.
    Resumes when killed. Returns the mean loss of the last steps.
    """
    settings = checked(GeneratorSettings, settings, "generator")
    device = pick_device()
    fix_threads()
    pairs = load_pairs(data, "train")
    if not pairs.class_names:
        raise CliperaseError(f"data {str(data)!r} has no classes; the generator is prompted with their names")
    torch.manual_seed(settings.seed)
    reader = load_model(model_folder)
    pipeline = create_pipeline(reader, pairs.images.shape[-1], settings.pad)
    prompts = text_states(pipeline, [*(PROMPT.format(name) for name in pairs.class_names), ""])
    latents = pipeline.vae.encode(pairs.images.float() / 127.5 - 1)
    about = (latents, pairs.labels, prompts.to(device), settings, fingerprint(reader, pairs))
    loss = train_averaged(Denoising(pipeline.unet.to(device), pipeline.scheduler, *about), output)
    pipeline.save_pretrained(output)
    reader.save(Path(output) / "original")
    remove_checkpoint(checkpoint_beside(output))
    return loss


class Denoising(LossTraining):
    """Learn to see the picture in the noise, given the prompt."""

    def __init__(self, unet, noise, latents, labels, prompts, settings, start):
        super().__init__(unet, settings, start)
        self.noise, self.latents, self.labels, self.prompts = noise, latents, labels, prompts
        self.sampler = EpochSampler(len(latents), settings.batch, settings.seed)

    def loss(self, step):
        """Mean squared error of the picture."""
        rows, device = self.sampler.batch(step), self.prompts.device
        latents, chosen = self.latents[rows], self.labels[rows].clone()
        chosen[torch.rand(len(rows), generator=self.generator) < self.settings.drop_prompt] = len(self.prompts) - 1
        noise = torch.randn(latents.shape, generator=self.generator)
        times = torch.randint(self.noise.config.num_train_timesteps, (len(rows),), generator=self.generator)
        latents, noise, times = latents.to(device), noise.to(device), times.to(device)
        predicted = self.model(self.noise.add_noise(latents, noise, times), times, self.prompts[chosen.to(device)])
        return {"loss": F.mse_loss(predicted.sample, latents)}
