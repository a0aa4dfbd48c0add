"""Where activations are read: the modules of a network, found by name, for each kind of site.

`mlp` is the input of the down-projection, act(gate) * up, the neurons of the field; `residual` is the decoder layer's
output; `gate` is act(gate) alone, of a gated MLP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

from nait_assets.errors import ModelError, RecipeError

if TYPE_CHECKING:
    from torch import nn

LAYER_LISTS = ("layers", "h", "model.layers", "transformer.h", "decoder.layers", "gpt_neox.layers")
GATE_PROJECTIONS = ("mlp.gate_proj", "mlp.gate_up_proj")
GATE_FUNCTIONS = ("mlp.act_fn", "mlp.activation_fn")
DOWN_PROJECTIONS = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2")


FAMILIES = "Llama, Mistral, Qwen, Gemma, Phi, GPT-NeoX and GPT-2"
GATED_FAMILIES = "Llama, Mistral, Qwen, Gemma and Phi-3"
SiteKind = Literal["mlp", "residual", "gate"]


@dataclass(frozen=True)
class Site:
    """What is read in every layer asked for.

    Attributes:
        kind: `mlp`, `residual` or `gate`.
        modules: By layer: the down-projection, whose input is read, or the decoder layer or the gate's activation
            function, whose output is read.
        width: Neurons (`mlp`, `gate`) or residual dimensions of a layer.
    """

    kind: SiteKind
    modules: "dict[int, nn.Module]"
    width: int

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers, in order."""
        return tuple(self.modules)


def resolve_site(network: Any, kind: SiteKind, layers: Literal["all"] | Sequence[int]) -> Site:
    """The modules to read in a base model (Llama, Mistral, Qwen, Gemma, Phi, GPT-NeoX, GPT-2 and relatives).

    Raises:
        ModelError: The network has none of the known module names.
        RecipeError: A layer is out of range, or the layers differ in width.
    """
    if getattr(network.config, "is_encoder_decoder", False):
        raise _unknown_architecture(
            network, "a decoder alone (this one has an encoder)", ("is_encoder_decoder: false",)
        )
    stack = next((found for name in LAYER_LISTS if (found := _at(network, name)) is not None), None)
    if stack is None:
        raise _unknown_architecture(network, "its list of decoder layers", LAYER_LISTS)
    wanted = tuple(range(len(stack))) if layers == "all" else tuple(layers)
    if wanted and max(wanted) >= len(stack):
        raise RecipeError(
            f"extraction.layers: {max(wanted)} is out of range; "
            f"{type(network).__name__} has layers 0 to {len(stack) - 1}."
        )
    if kind == "residual":
        return Site(kind, {layer: stack[layer] for layer in wanted}, int(network.config.hidden_size))
    modules = {layer: _down_projection(network, layer, stack[layer]) for layer in wanted}
    widths = {_input_width(module) for module in modules.values()}
    if len(widths) != 1:
        raise RecipeError(
            f"{type(network).__name__}: layers {list(wanted)} have different numbers of neurons "
            f"{sorted(widths)}; name layers of one width."
        )
    if kind == "gate":
        modules = {layer: _gate(network, layer, stack[layer]) for layer in wanted}
    return Site(kind, modules, widths.pop())


def _gate(network: Any, layer: int, block: Any) -> Any:
    """The module that computes act(gate): it is told from another MLP's activation by the gate's own projection."""
    from torch import nn

    gated = any(_at(block, name) is not None for name in GATE_PROJECTIONS)
    found = next((module for name in GATE_FUNCTIONS if isinstance(module := _at(block, name), nn.Module)), None)
    if not gated or found is None:
        what = f"the gate projection and its activation in layer {layer} ({type(block).__name__})"
        raise _unknown_architecture(network, what, (*GATE_PROJECTIONS, *GATE_FUNCTIONS), GATED_FAMILIES)
    return found


def _down_projection(network: Any, layer: int, block: Any) -> Any:
    found = next((module for name in DOWN_PROJECTIONS if (module := _at(block, name)) is not None), None)
    if found is None:
        what = f"the down-projection of layer {layer} ({type(block).__name__})"
        raise _unknown_architecture(network, what, DOWN_PROJECTIONS)
    return found


def _at(module: Any, path: str) -> Any:
    return reduce(lambda found, name: getattr(found, name, None), path.split("."), module)


def _input_width(projection: Any) -> int:
    """Inputs of a linear layer; GPT-2's Conv1D keeps its weight transposed."""
    return int(projection.in_features if hasattr(projection, "in_features") else projection.weight.shape[0])


def _unknown_architecture(network: Any, what: str, names: tuple[str, ...], families: str = FAMILIES) -> ModelError:
    children = ", ".join(name for name, _ in network.named_children())
    return ModelError(
        f"unknown architecture {type(network).__name__}: {what} was looked for as {', '.join(names)}; "
        f"its modules are {children}. Models of the {families} families work."
    )
