"""Train a small BLIP, and a captioner beside it."""

from paper.commands import add_options, train_beside_clip


def add_arguments(parser):
    add_options(parser, "data", "model", "profile", "output")


def run(arguments):
    from paper.small_blip import pretrain_blip

    train_beside_clip(arguments, pretrain_blip, "experiments.blip.pretrain")
