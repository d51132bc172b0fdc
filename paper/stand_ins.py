"""Stand-ins for what the profile `paper` wants: a cache of the hub and a folder of data, small and without knowledge.

The models are of the real families and answer to the real names. Their vocabularies, picture sizes and configurations
are the real ones; they are narrower, with fewer layers, BLIP with coarser patches, and their weights are random.
Pictures are noise.
"""

import io
import json
import tarfile

import datasets
import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from cliperase.models import load_model
from cliperase.models.text_encoder import clip_tokenizer, to_transformers

COMMIT = "0" * 40  # under which the hub's client looks for a snapshot
TEXT = {"context_length": 77, "vocab_size": 49408, "layers": 2}
CLIPS = {  # name -> (repository that open_clip asks for the tag `openai`, shrunk configuration)
    "ViT-B-32": ("timm/vit_base_patch32_clip_224.openai", {
        "embed_dim": 32, "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "patch_size": 32},
        "text_cfg": {**TEXT, "width": 32, "heads": 8},
    }),
    "ViT-L-14": ("timm/vit_large_patch14_clip_224.openai", {
        "embed_dim": 48, "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "patch_size": 14},
        "text_cfg": {**TEXT, "width": 48, "heads": 12},
    }),
}  # fmt: skip
READER = "ViT-L-14"  # whose text encoder Stable Diffusion 1 has
BERT = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}  # places in BERT's vocabulary
BERT_SIZE, BLIP_SIZE = 30_522, 30_524  # tokens; [DEC] and [ENC] have rows in BLIP's embedding only
CIFAR = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm"""
COCO = """
N/A,person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,N/A,stop sign,parking meter,
bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,N/A,backpack,umbrella,N/A,N/A,handbag,tie,suitcase,
frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,N/A,
wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,
potted plant,bed,N/A,dining table,N/A,N/A,toilet,N/A,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,
sink,refrigerator,N/A,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"""
CLASSES, OBJECTS = CIFAR.split(), COCO.replace("\n", "").split(",")  # in the order of their numbers
SAID = ("apple", "bicycle", "dog", "ball", "snow", "beach", "car", "water", "horse", "tree")  # what captions name
SHARDS, PER_SHARD = 10, 24
ORDER = 339  # a seed that leaves images of each concept on both sides when 120 of 500 are held out


def write_hub(cache, configurations):
    """Write the models into `cache`, a folder as the environment variable HF_HUB_CACHE names it.

    open_clip is told of the narrow CLIPs, whose `configurations` are written to that folder, and the environment must
    name `cache` when huggingface_hub is imported.
    """
    torch.manual_seed(0)
    add_clips(configurations)
    for name, (repository, _) in CLIPS.items():
        model = open_clip.create_model(name, load_weights=False, force_quick_gelu=True)
        weights = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(weights, snapshot(cache, repository) / "open_clip_model.safetensors")
    write_blips(cache)
    write_stable_diffusion(snapshot(cache, "stable-diffusion-v1-5/stable-diffusion-v1-5"))
    write_detector(snapshot(cache, "facebook/detr-resnet-50"))


def add_clips(folder):
    """Let open_clip build narrow models under the real names; `folder` gets their configurations."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, config) in CLIPS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def snapshot(cache, repository):
    """The folder in `cache` that holds the files of a repository of the hub."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    found = folder / "snapshots" / COMMIT
    for path in (found, folder / "refs"):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    return found


def write_blips(cache):
    """BLIP base, the one that matches and the one that writes captions."""
    import transformers

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**size, "vocab_size": BLIP_SIZE, "encoder_hidden_size": 32, "max_position_embeddings": 512}
    text |= {"bos_token_id": BERT_SIZE, "eos_token_id": 2, "sep_token_id": BERT["[SEP]"], "pad_token_id": 0}
    vision = {**size, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 384, "patch_size": 48}
    vision["initializer_range"] = 0.02  # the default, 1e-10, is for loading only
    config = transformers.BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=16)
    for name, kind in (
        ("Salesforce/blip-itm-base-coco", transformers.BlipForImageTextRetrieval),
        ("Salesforce/blip-image-captioning-base", transformers.BlipForConditionalGeneration),
    ):
        for part in (kind(config), bert_tokenizer(), transformers.BlipImageProcessor()):
            part.save_pretrained(snapshot(cache, name))


def bert_tokenizer():
    """A tokenizer of BERT's size, its special tokens where BERT has them; it knows letters and the words said here."""
    from transformers import BertTokenizer

    words = {word for name in (*CLASSES, *SAID, "a_photo_of") for word in name.split("_")}
    letters = [chr(number) for number in range(33, 127)]
    known = [*letters, *(f"##{letter}" for letter in letters), *sorted(words - set(letters))]
    free = [place for place in range(BERT_SIZE) if place not in BERT.values()]
    vocabulary = {**BERT, **dict(zip(known, free, strict=False))}
    vocabulary |= {f"[unused{place}]": place for place in free[len(known) :]}
    return BertTokenizer(vocab=dict(sorted(vocabulary.items(), key=lambda item: item[1])), model_max_length=512)


def write_stable_diffusion(folder):
    """Stable Diffusion 1.5, whose text encoder is that of the CLIP `READER`: four levels, PNDM, a safety checker."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    encoder = to_transformers(load_model(f"{READER}/openai"))
    levels = (32, 32, 32, 32)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=levels, layers_per_block=1, attention_head_dim=8,
        cross_attention_dim=encoder.config.hidden_size,
    )  # fmt: skip
    coder = AutoencoderKL(
        block_out_channels=levels, layers_per_block=1, sample_size=64, down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
    )  # fmt: skip
    noise = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1,
        set_alpha_to_one=False,
    )  # fmt: skip
    narrow = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    checker = CLIPConfig(text_config=narrow, vision_config=narrow, projection_dim=16)
    StableDiffusionPipeline(
        vae=coder, text_encoder=encoder, tokenizer=clip_tokenizer(77), unet=unet, scheduler=noise,
        safety_checker=StableDiffusionSafetyChecker(checker), feature_extractor=CLIPImageProcessor(),
    ).save_pretrained(folder)  # fmt: skip


def write_detector(folder):
    """DETR with the classes of COCO, on a ResNet of timm."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor

    config = DetrConfig(
        backbone="test_resnet", use_timm_backbone=True, d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=4, decoder_attention_heads=4, num_queries=10,
        id2label=dict(enumerate(OBJECTS)), label2id={name: number for number, name in enumerate(OBJECTS)},
    )  # fmt: skip
    DetrForObjectDetection(config).save_pretrained(folder)
    DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)


def write_data(folder, per_class=5):
    """Write to `folder` what DATA is to hold: CIFAR-100 as on the hub, Flickr30K and CC12M as their owners have them.

    `per_class`: training images of each class of CIFAR-100; for testing there is one.
    """
    draw = np.random.default_rng(0)
    write_cifar(folder / "cifar100", draw, {"train": per_class, "test": 1})
    write_flickr(folder / "flickr30k", draw, {"train": 60, "restval": 4, "val": 40, "test": 40})
    write_shards(folder / "cc12m", draw)


def picture(draw, height, width, kind):
    """The bytes of a picture of noise."""
    file = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def write_cifar(folder, draw, per_class):
    labels = {"fine_label": datasets.ClassLabel(names=CLASSES), "coarse_label": datasets.ClassLabel(num_classes=20)}
    features = datasets.Features({"img": datasets.Image(), **labels})
    folder.mkdir(parents=True)
    for split, count in per_class.items():
        rows = [
            {
                "img": {"bytes": picture(draw, 32, 32, "PNG"), "path": None},
                "fine_label": label,
                "coarse_label": label % 20,
            }
            for label in range(len(CLASSES))
            for _ in range(count)
        ]
        order = np.random.default_rng(ORDER).permutation(len(rows))
        table = datasets.Dataset.from_list([rows[i] for i in order], features=features)
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def caption(number, way=0):
    """A caption that names one of `SAID`, in turn."""
    return f"{('a', 'the', 'some', 'a small', 'one')[way]} {SAID[number % len(SAID)]} in picture {number}"


def write_flickr(folder, draw, counts):
    """Karpathy's JSON and a folder of JPEGs, five sentences each."""
    (folder / "images").mkdir(parents=True)
    listed = []
    for split, count in counts.items():
        for number in range(count):
            name = f"{split}{number}.jpg"
            (folder / "images" / name).write_bytes(picture(draw, 90, 120, "JPEG"))
            sentences = [{"raw": caption(number, way), "tokens": caption(number, way).split()} for way in range(5)]
            listed.append({"filename": name, "split": split, "sentences": sentences, "imgid": len(listed)})
    content = {"images": listed, "dataset": "flickr30k"}
    (folder / "dataset_flickr30k.json").write_text(json.dumps(content))


def write_shards(folder, draw):
    """Tar files as img2dataset writes them for webdataset, with a table and a file of counts beside each."""
    folder.mkdir(parents=True)
    for shard in range(SHARDS):
        keys = [f"{shard:05d}{number:04d}" for number in range(PER_SHARD)]
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number, key in enumerate(keys):
                about = {"key": key, "caption": caption(number), "status": "success", "width": 100, "height": 80}
                files = {"jpg": picture(draw, 80, 100, "JPEG"), "txt": caption(number).encode()}
                for suffix, content in {**files, "json": json.dumps(about).encode()}.items():
                    member = tarfile.TarInfo(f"{key}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        datasets.Dataset.from_dict({"key": keys}).to_parquet(folder / f"{shard:05d}.parquet")
        counts = {"count": PER_SHARD, "successes": PER_SHARD}
        (folder / f"{shard:05d}_stats.json").write_text(json.dumps(counts))
