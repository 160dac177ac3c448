"""The losses of one optimizer step, evaluated again at other weights exactly as the Trainer evaluated them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, distributed, nn


@dataclass
class Forward:
    """One micro-batch.

    Args:
        again: evaluates its loss anew.
        random: the states of the random generators before it.
        loss: what it was, (), detached.
        weight: how the backward pass weighed it, (): the derivative by it of what was differentiated.
    """

    again: Callable[[], Tensor]
    random: list[Tensor]
    loss: Tensor
    weight: Tensor | None = None

    def weigh(self, gradient: Tensor) -> None:
        """Note the weight; a hook on the loss."""
        self.weight = gradient.detach().clone()


class LossReplay:
    """Records what goes through ``Trainer.compute_loss`` in training, and evaluates it again.

    The weight of a micro-batch (of gradient accumulation, for one) is not calculated but seen: it is the gradient that
    arrives at its loss. So `loss` is the very number whose gradient is in ``p.grad``, however the Trainer made it:
    over all micro-batches of the step, and as the mean over processes, to which their gradients are averaged.

    A replay draws the random numbers of the original (dropout) from torch's generators and leaves them as it found
    them, like the model's buffers.

    Args:
        model: the model whose weights move.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.devices = sorted({p.device for p in model.parameters() if p.device.type != "cpu"}, key=str)
        self.forwards: list[Forward] = []

    def recording(self, compute_loss: Callable[..., Any]) -> Callable[..., Any]:
        """`compute_loss`, noting what it is called with where gradients are wanted: evaluations pass unseen."""

        def recorded(model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return compute_loss(model, inputs, *args, **kwargs)
            # copied before and at each use, because labels are taken out of the inputs it is given
            kept, random = copy(inputs), self._random_states()
            found = compute_loss(model, inputs, *args, **kwargs)
            again = lambda: _loss_of(compute_loss(model, copy(kept), *args, **kwargs))  # noqa: E731
            forward = Forward(again, random, _loss_of(found).detach().clone())
            _loss_of(found).register_hook(forward.weigh)  # type: ignore[no-untyped-call]
            self.forwards.append(forward)
            return found

        return recorded

    def clear(self) -> None:
        """Forget the step, and hold its inputs no longer."""
        self.forwards = []

    def loss(self) -> float:
        """The loss of the step as it was.

        Raises:
            ValueError: no loss was seen, or the backward pass did not go through one of them.
        """
        if not self.forwards or any(forward.weight is None for forward in self.forwards):
            raise ValueError(
                f"ArmijoLineSearch: the gradients are not those of the {len(self.forwards)} losses which "
                "Trainer.compute_loss gave in this step; a training_step of your own must differentiate what it returns"
            )
        return self._total(lambda forward: forward.loss)

    @torch.no_grad()
    def replay(self) -> float:
        """The same at the present weights."""
        kind = self.devices[0].type if self.devices else "cuda"
        forked = torch.random.fork_rng([device.index for device in self.devices], device_type=kind)
        with forked, _kept(self.model.buffers()):
            return self._total(self._again)

    def _again(self, forward: Forward) -> Tensor:
        for device, state in zip([None, *self.devices], forward.random, strict=True):
            if device is None:
                torch.set_rng_state(state)
            else:
                torch.get_device_module(device).set_rng_state(state, device)
        return forward.again()

    def _total(self, loss_of: Callable[[Forward], Tensor]) -> float:
        weighed = [loss_of(f).item() * f.weight.item() for f in self.forwards if f.weight is not None]
        return _mean_over_processes(sum(weighed))

    def _random_states(self) -> list[Tensor]:
        on_devices = [torch.get_device_module(device).get_rng_state(device) for device in self.devices]
        return [torch.get_rng_state(), *on_devices]


def _loss_of(found: Any) -> Tensor:
    loss: Tensor = found[0] if isinstance(found, tuple) else found
    return loss


@contextmanager
def _kept(buffers: Iterable[Tensor]) -> Iterator[None]:
    """Buffers as they were, afterwards: running statistics belong to training steps, not to trials."""
    pairs = [(buffer, buffer.clone()) for buffer in buffers]
    try:
        yield
    finally:
        for buffer, before in pairs:
            buffer.copy_(before)


def _mean_over_processes(value: float) -> float:
    if not distributed.is_initialized():
        return value
    total = torch.tensor(value, dtype=torch.float64, device=PartialState().device)
    distributed.all_reduce(total)
    return total.item() / distributed.get_world_size()
