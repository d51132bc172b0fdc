"""How often a detector sees what was asked for in generated pictures."""

import torch

from cliperase.metrics.tasks import Task


def detection_rates(detect, pictures):
    """(P, C) percent of the pictures (P, images, 3, H, W) of each prompt in which each concept is detected."""
    return torch.stack([100 * detect(each).double().mean(dim=0) for each in pictures])


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


DRAWN = Task(rate_metrics, "detection_rate", "other_detection_rate")
