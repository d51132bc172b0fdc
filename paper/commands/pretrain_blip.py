"""Train a small BLIP, and a captioner beside it."""

from paper.commands import add_options


def add_arguments(parser):
    add_options(parser, "data", "model", "profile", "output")


def run(arguments):
    from cliperase.files import check_writable
    from paper.params import read_profile
    from paper.small_blip import pretrain_blip

    check_writable(arguments.output / "config.json")
    settings = read_profile(arguments.profile).section("experiments.blip.pretrain")
    loss = pretrain_blip(arguments.data, arguments.model, arguments.output, settings)
    print(f"{arguments.output}: loss {loss:.3f} over the last tenth of the steps")
