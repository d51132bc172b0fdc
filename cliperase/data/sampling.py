"""Which rows a step draws from a set in memory, and what is done to their images."""

from dataclasses import dataclass

import torch

from cliperase.devices import send
from cliperase.parallel import share


class EpochSampler:
    """Batches of row numbers, every row once per epoch, in an order fixed by the seed.

    The batch of a step is a function of the step alone, so a resumed run needs no sampler state.
    """

    def __init__(self, rows, batch_size, seed):
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.orders = {}

    def order(self, epoch):
        if epoch not in self.orders:
            generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
            self.orders = {e: o for e, o in self.orders.items() if e == epoch - 1}  # keep only the last epoch
            self.orders[epoch] = torch.randperm(self.rows, generator=generator)
        return self.orders[epoch]

    def batch(self, step):
        """(batch_size,) row numbers; an epoch's end is filled up from the next epoch."""
        first = step * self.batch_size
        positions = torch.arange(first, first + self.batch_size)
        epochs = range(first // self.rows, (first + self.batch_size - 1) // self.rows + 1)
        return torch.cat([self.order(e)[positions[positions // self.rows == e] % self.rows] for e in epochs])


@dataclass(frozen=True)
class Rows:
    """What a step draws from one source: B `captions`, and the `images` (B, 3, H, W) that belong to them; with
    several processes, those of this one's share. From a set in memory also the row numbers `index` (B,) and the
    caption numbers `text_rows` (B,)."""

    name: str
    images: torch.Tensor
    captions: list
    index: torch.Tensor | None = None
    text_rows: torch.Tensor | None = None


class Drawn:
    """A `PairSet` as a source of rows. The step alone decides which rows, so there is no position to save."""

    def __init__(self, pairs, batch_size, seed, device=None):
        self.pairs, self.sampler = pairs, EpochSampler(len(pairs), batch_size, seed)
        self.images = pairs.images.to(device) if device else pairs.images

    def rows(self, step, column, transform):
        """(images, captions, index, text_rows) of `Rows`; `transform` changes the images."""
        index, ids = self.sampler.batch(step), self.pairs.text_ids
        text_rows = ids[index, column % ids.shape[1]]
        images = transform(self.images[send(index, self.images.device)])[share(len(index))]
        return images, [self.pairs.texts[i] for i in text_rows.tolist()], index, text_rows

    def steps_to_all_classes(self):
        """How many steps, from the first, draw a row of every class; 0 without classes."""
        if self.pairs.labels is None:
            return 0
        labels = self.pairs.labels[self.sampler.order(0)].tolist()
        last = max(map(labels.index, set(labels)))  # the place at which the last of them comes for the first time
        return last // self.sampler.batch_size + 1

    def tell(self):
        return None

    def seek(self, position):
        pass


def mirror_and_shift(images, generator):
    """(N, 3, H, W), each mirrored with probability ½ and shifted by up to an eighth of its sides, edges reflected."""
    count, _, height, width = images.shape

    def places(length, mirrored):
        shift = torch.randint(-(length // 8), length // 8 + 1, (count, 1), generator=generator)
        found = (torch.arange(length) + shift).abs()
        found = torch.where(found < length, found, 2 * (length - 1) - found)
        return torch.where(mirrored, length - 1 - found, found).to(images.device)

    never, half = torch.zeros(count, 1, dtype=torch.bool), torch.rand(count, 1, generator=generator) < 0.5
    rows, columns = places(height, never), places(width, half)
    which = torch.arange(count, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
