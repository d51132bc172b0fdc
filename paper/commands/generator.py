"""Train a small text-to-image model on the pictures of a data set."""

from paper.commands import add_options, train_beside_clip


def add_arguments(parser):
    add_options(parser, "data", "model", "profile", "output")


def run(arguments):
    from paper.generator import train_generator

    train_beside_clip(arguments, train_generator, "experiments.diffusion.generator_training")
