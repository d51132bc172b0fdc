"""The commands of `python -m paper`, one file each: `add_arguments(parser)` and `run(arguments)`."""

from pathlib import Path

OPTIONS = {
    "data": {"required": True, "help": "folder of a data set in the schema of cliperase.data"},
    "model": {"required": True, "help": "model folder, open_clip name/weights, hf-hub:… or blip:…"},
    "profile": {"default": "icons", "help": "one of paper/profiles, or the path of a YAML file; icons, if left out"},
    "output": {"required": True, "type": Path},
}


def add_options(parser, *names):
    for name in names:
        parser.add_argument(f"--{name}", **OPTIONS[name])


def train_beside_clip(arguments, train, section):
    """Train one of the small models that are no CLIP, with the `section` of the profile, and say its loss."""
    from cliperase.files import check_writable
    from paper.params import read_profile

    check_writable(arguments.output / "config.json")
    settings = read_profile(arguments.profile).section(section)
    loss = train(arguments.data, arguments.model, arguments.output, settings)
    print(f"{arguments.output}: loss {loss:.3f} since the last evaluation")
