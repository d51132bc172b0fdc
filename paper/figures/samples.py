"""Generated pictures in a grid: a row for each text encoder, the same noise in a column."""

import matplotlib.pyplot as plt

from paper.figures.style import FORGET, weight_of

STEP, GAP, ROOM = 1.07, 0.4, 1.75  # of a picture's side: from one to the next, between groups, over a block
LEFT, WIDTH = 2.3, 7  # room for the names of rows, in pictures; inches


def sample_figure(samples, concepts, forgotten, methods, prompt):
    """A block for each forgotten concept. `samples`: {`method/concept` or `original`: (concepts, shown, H, W, 3)}."""
    figure = plt.figure(figsize=(WIDTH, WIDTH))
    axis = figure.add_axes((0, 0, 1, 1))
    bottom = 0.0
    for concept in forgotten:
        grids = {method: samples[f"{method}/{concept}"] for method in methods}
        top = bottom + ROOM
        axis.text(0, top - 0.78, f"forget {concept}", fontsize=10, weight="bold", color=FORGET)
        axis.text(0, top - 0.2, f"“{prompt.format(concept)}”", fontsize=8, color=FORGET)
        right, bottom = draw_block(axis, {"original": samples["original"], **grids}, concepts, concept, top)
    axis.set(xlim=(-LEFT, right + 0.45), ylim=(bottom + 0.1, 0.3), aspect="auto")
    axis.axis("off")
    figure.set_size_inches(WIDTH, WIDTH * (bottom - 0.2) / (LEFT + right + 0.45))  # pictures stay square
    return figure


def draw_block(axis, grids, concepts, forgotten, top):
    """`grids` {row: (concepts, shown, H, W, 3)} of one forgotten concept. Returns the x and the y where it ends."""
    place, others = concepts.index(forgotten), [name for name in concepts if name != forgotten]
    shown = grids["original"].shape[1]
    start = shown * STEP + GAP
    for number, name in enumerate(others):
        axis.text(start + number * STEP + 0.3, top - 0.12, name, fontsize=7.5, rotation=35, rotation_mode="anchor")
    for line, (method, grid) in enumerate(grids.items()):
        y = top + line * STEP
        axis.text(-0.2, y + 0.5, method, ha="right", va="center", fontsize=9, weight=weight_of(method))
        for number in range(shown):
            put(axis, grid[place, number], number * STEP, y)
        for number, name in enumerate(others):
            put(axis, grid[concepts.index(name), 0], start + number * STEP, y)
    return start + len(others) * STEP, top + len(grids) * STEP


def put(axis, picture, x, y):
    """One picture (H, W, 3), its upper left corner at (x, y)."""
    axis.imshow(picture, extent=(x, x + 1, y + 1, y), interpolation="none")
    axis.add_patch(plt.Rectangle((x, y), 1, 1, fill=False, edgecolor="0.85", linewidth=0.5))
