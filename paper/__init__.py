"""The machinery of the reproduction: it trains and measures what the paper's tables and figures show."""

from cliperase.models import register

register("small_blip", "paper.families:SmallBLIP")
