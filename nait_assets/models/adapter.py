"""The recipe's causal model under a LoRA adapter: its loss on a response, and the gradient by the adapter's weights.

The frozen model is shared, never changed: the adapter is put into a copy of its modules that holds the same tensors.
Belongs here: the adapter, the loss, one sample's gradient. Does not belong here: how it is trained (`training`), and
what is made of gradients.
"""

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nait_assets.errors import RecipeError
from nait_assets.models.answers import AnsweredSample
from nait_assets.resources.language_model import LoadedModel

if TYPE_CHECKING:
    import torch

ALL_LINEAR: Literal["all-linear"] = "all-linear"
"""peft's name for every linear module but the head."""


@dataclass(frozen=True)
class Adapter:
    """A network whose only trainable weights are those of its LoRA adapter.

    Attributes:
        network: peft's model, in evaluation mode.
        weights: The adapter's weights by name, float32, in the order in which gradients are laid out.
        device: Device of the network.
    """

    network: Any
    weights: "Mapping[str, torch.nn.Parameter]"
    device: "torch.device"

    @property
    def n_weights(self) -> int:
        """How many numbers the adapter has."""
        return sum(weight.numel() for weight in self.weights.values())

    def put(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Replace the adapter's weights."""
        import torch

        assert tensors.keys() == self.weights.keys(), "these are of another adapter"
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(tensors[name])

    def loss(self, sample: AnsweredSample) -> "torch.Tensor":
        """Mean cross entropy of the response's tokens, each predicted from all before it; a float32 scalar."""
        import torch

        tokens = torch.from_numpy(sample.token_ids).long().to(self.device)
        wanted = torch.from_numpy(sample.answers[1:]).to(self.device)
        logits = self.network(input_ids=tokens[None], use_cache=False).logits[0, :-1][wanted]
        return torch.nn.functional.cross_entropy(logits.float(), tokens[1:][wanted])

    def gradient(self, sample: AnsweredSample) -> "torch.Tensor":
        """`(n_weights,)` float32: gradient of one sample's loss, the weights one after the other."""
        import torch

        weights = list(self.weights.values())  # of experts, a sample may use none
        gradients = torch.autograd.grad(self.loss(sample), weights, allow_unused=True, materialize_grads=True)
        return torch.cat([gradient.reshape(-1) for gradient in gradients])

    def flat(self, tensors: "Mapping[str, torch.Tensor]") -> "torch.Tensor":
        """`(n_weights,)`: tensors by the weights' names, laid out as a gradient is."""
        import torch

        return torch.cat([tensors[name].reshape(-1) for name in self.weights]).to(self.device)

    def merged(self) -> Any:
        """The network with what the adapter learnt added to its weights, which the model shares: it changes too."""
        return self.network.merge_and_unload().eval()


def resolve_targets(network: Any, wanted: Sequence[str], field: str) -> list[str]:
    """The names of the linear modules that get an adapter, each of which the network must have.

    Args:
        network: With or without its head, weights or not.
        wanted: Last parts of module names.
        field: Field of the recipe that names them, for the error.

    Raises:
        RecipeError: The network lacks one.
    """
    names = [name for name, module in network.named_modules() if type(module).__name__ in ("Linear", "Conv1D")]
    last = sorted({name.rpartition(".")[2] for name in names})
    missing = [one for one in wanted if not any(name == one or name.endswith(f".{one}") for name in names)]
    if missing:
        raise RecipeError(
            f"{field}: {type(network).__name__} has no linear module {', '.join(missing)}; looked "
            f"for {', '.join(wanted)}. Name the attention's among those it has: {', '.join(last) or 'none'}."
        )
    return list(wanted)


def adapted(
    model: LoadedModel,
    rank: int,
    alpha: float,
    dropout: float,
    target_modules: Sequence[str] | Literal["all-linear"],
    seed: int,
) -> Adapter:
    """A fresh adapter on the model: A drawn by the seed, B zero, so that nothing changes yet.

    Args:
        model: Stays as it is.
        rank: Rank of each module's adapter.
        alpha: alpha / rank scales what the adapter adds.
        dropout: Share of an adapter's inputs that training leaves out.
        target_modules: Last parts of the names of the modules that get one, which the model has; or `all-linear`.
        seed: Seed of A.
    """
    import peft
    import torch

    tensors = itertools.chain(model.network.parameters(), model.network.buffers())
    # A deep copy whose memo holds every tensor copies the modules alone: a second 7B model would not fit in memory.
    shared = copy.deepcopy(model.network, {id(tensor): tensor for tensor in tensors})
    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    settings = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, bias="none")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = peft.get_peft_model(shared, settings).eval()
    weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    assert all("lora_" in name and weight.dtype == torch.float32 for name, weight in weights.items())
    return Adapter(network, weights, model.device)
