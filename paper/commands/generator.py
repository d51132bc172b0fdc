"""Train a small text-to-image model on the pictures of a data set."""

from paper.commands import add_options


def add_arguments(parser):
    add_options(parser, "data", "model", "profile", "output")


def run(arguments):
    from cliperase.files import check_writable
    from paper.generator import train_generator
    from paper.params import read_profile

    check_writable(arguments.output / "config.json")
    settings = read_profile(arguments.profile).section("experiments.diffusion.generator_training")
    loss = train_generator(arguments.data, arguments.model, arguments.output, settings)
    print(f"{arguments.output}: loss {loss:.3f} over the last tenth of the steps")
