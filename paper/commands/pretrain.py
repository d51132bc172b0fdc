"""Train the compact CLIP from scratch, or on from another model."""

from paper.commands import add_options


def add_arguments(parser):
    parser.add_argument("--without", help="concept, or the experiment's rule of this name, to leave out: the reference")
    parser.add_argument("--start", help="model folder whose weights training starts from")
    parser.add_argument("--seed", type=int, help="another seed than the profile's")
    parser.add_argument("--section", default="pretrain", help="section of the profile with the settings")
    add_options(parser, "data", "profile", "output")


def run(arguments):
    from cliperase.errors import CliperaseError
    from cliperase.files import check_writable
    from paper.params import read_profile
    from paper.pretraining import pretrain

    check_writable(arguments.output / "open_clip_config.json")
    profile = read_profile(arguments.profile)
    settings = profile.section(arguments.section)
    if "steps" not in settings:
        raise CliperaseError(
            f"section {arguments.section!r} of profile {arguments.profile} names no steps; is it the right one?"
        )
    if arguments.seed is not None:
        settings = {**settings, "seed": arguments.seed}
    without = arguments.without and rule_beside(profile, arguments.section, arguments.without)
    quality = pretrain(arguments.data, arguments.output, settings, without, arguments.start)
    print(f"{arguments.output}: {quality:.1f} % on validation images of what it was trained on")


def rule_beside(profile, section, name):
    """The forget rule `name` of the experiment whose section `pretrain` is trained, or the concept of this name."""
    experiment = profile.section(section.rpartition(".")[0]) if "." in section else {}
    return experiment.get("rules", {}).get(name, {"concept": name})
