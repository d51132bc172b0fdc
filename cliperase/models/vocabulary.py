"""The token embedding of a text tower: only the rows in use train, and its tokenizer must be whole."""

import torch
import torch.nn.functional as F
from torch import nn

from cliperase.errors import CliperaseError


def narrow(holder, tokens):
    """Let `holder.token_embedding` train only the rows of `tokens`, a tensor of any shape; nothing if it is frozen."""
    embedding = holder.token_embedding
    if type(embedding) is nn.Embedding and embedding.weight.requires_grad:
        holder.token_embedding = UsedEmbedding(embedding, tokens.unique().to(embedding.weight.device))


def widen(holder):
    """Undo `narrow`; the rows in use are as they are now."""
    if isinstance(holder.token_embedding, UsedEmbedding):
        holder.token_embedding = holder.token_embedding.restore()


class UsedEmbedding(nn.Module):
    """A token embedding that trains only the rows of the tokens in `used`; the other rows stay as they are.

    Unused rows have no gradient, but Adam would read and write the whole table at every step. In a small model the
    table is most of the weights. Weight decay does not reach the unused rows.
    """

    def __init__(self, embedding, used):
        super().__init__()
        self.whole, self.used = (embedding,), used  # in a tuple: its table is no parameter of this module
        self.weight = nn.Parameter(embedding.weight.detach()[used])
        number = torch.full((embedding.num_embeddings,), -1, device=used.device)
        number[used] = torch.arange(len(used), device=used.device)
        self.register_buffer("number", number, persistent=False)

    def forward(self, tokens):
        number, table = self.number[tokens], self.whole[0].weight.detach()
        rows = F.embedding(number.clamp(min=0), self.weight)
        return torch.where((number >= 0)[..., None], rows, F.embedding(tokens, table))

    @torch.no_grad()
    def restore(self):
        """The ordinary embedding, its used rows as they are now."""
        self.whole[0].weight[self.used] = self.weight
        return self.whole[0]


def check_vocabulary(tokens, rows, source):
    """Refuse a tokenizer of many fewer `tokens` than the embedding has `rows`.

    transformers makes one of a few tokens, without an error, where files lack. A complete tokenizer may have a few
    tokens less than the embedding has rows, which are often rounded up.
    """
    if tokens < rows / 2:
        raise CliperaseError(
            f"tokenizer of model {str(source)!r} has {tokens} tokens, the model {rows}; copy all its files"
        )
