"""Mean and scatter matrix of rows that come in batches and on several processes, in float64."""

import torch
from torch import Tensor, distributed


class Moments:
    """Count, mean and scatter matrix of the rows seen, merged by Chan, Golub and LeVeque (1979, eq. 2.1).

    Attributes:
        rows: number of rows n.
        mean: (H,) float64.
        scatter: (H, H) float64, the sum of ``(x - mean)(x - mean)^T``; divided by n it is the covariance.
    """

    def __init__(self, size: int) -> None:
        self.rows = 0
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.scatter = torch.zeros(size, size, dtype=torch.float64)

    @torch.no_grad()
    def update(self, embeddings: Tensor) -> None:
        """Add a batch (B, H), on any device and in any precision."""
        rows = embeddings.detach().cpu().double()
        mean = rows.mean(dim=0)
        centred = rows - mean
        self._merge(len(rows), mean, centred.T @ centred)

    def over_processes(self, device: torch.device) -> "Moments":
        """The moments of the rows of all processes, bitwise the same on each; one collective of H * H + H + 1 numbers.

        Args:
            device: where the process group exchanges tensors.
        """
        if not distributed.is_initialized():
            return self
        size = len(self.mean)
        mine = torch.cat([torch.tensor([self.rows], dtype=torch.float64), self.mean, self.scatter.flatten()])
        slots = torch.zeros(distributed.get_world_size(), len(mine), dtype=torch.float64, device=device)
        # a slot for each process instead of plain sums: sums of squares that are not centred would lose digits
        slots[distributed.get_rank()] = mine.to(device)
        distributed.all_reduce(slots)
        total = Moments(size)
        for slot in slots.cpu():
            total._merge(int(slot[0]), slot[1 : size + 1], slot[size + 1 :].view(size, size))
        return total

    def _merge(self, rows: int, mean: Tensor, scatter: Tensor) -> None:
        if not rows:
            return
        total, delta = self.rows + rows, mean - self.mean
        self.scatter += scatter + torch.outer(delta, delta) * (self.rows * rows / total)
        self.mean += delta * (rows / total)
        self.rows = total
