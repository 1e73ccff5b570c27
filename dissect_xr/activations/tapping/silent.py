"""Why a module never runs in a forward pass, and how its values can be had all the same.

Knows: the modules of torch, torchvision, timm and transformers that read their children's weights and do not call them.
Does not know: hooks, or other reasons why a module is no layer.
"""

from torch import nn

SILENT = "is not called in a forward pass"


def why_silent(model: nn.Module, name: str) -> str:
    """Why a module is not called, as a clause that follows its name.

    Examples
    --------
    >>> why_silent(nn.Sequential(nn.MultiheadAttention(4, 2)), "0.out_proj")
    "is not called in a forward pass: nn.MultiheadAttention reads its weights and calls none of its modules. Name what \
it returns instead: '0[0]'"
    """
    modules = dict(model.named_modules())
    parents = [".".join(name.split(".")[:n]) for n in range(name.count("."), 0, -1)]
    for parent in parents:
        module = modules[parent]
        if isinstance(module, nn.MultiheadAttention):
            return (
                f"{SILENT}: nn.MultiheadAttention reads its weights and calls none of its modules. Name what it "
                f"returns instead: '{parent}[0]'"
            )
        if isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerEncoder)):
            return (
                f"{SILENT}: in eval mode nn.{type(module).__name__} takes a fast path that calls none of its modules. "
                "Switch it off where the model is made, by torch.backends.mha.set_fastpath_enabled(False), or name "
                f"'{parent}' itself"
            )
        if getattr(module, "fused_attn", False):
            return (
                f"{SILENT}: {type(module).__name__} computes attention in one fused step. Set fused_attn = False on "
                f"'{parent}' where the model is made (timm.layers.set_fused_attn(False) before), or name '{parent}'"
            )
        if getattr(getattr(module, "config", None), "_attn_implementation", "eager") != "eager" and (
            "attention" in type(module).__name__.lower()
        ):
            return (
                f"{SILENT}: {type(module).__name__} computes attention in one fused step. Make the model with "
                f"attn_implementation='eager', or name '{parent}'"
            )
        if type(module).__name__.startswith("ShiftedWindowAttention"):
            return (
                f"{SILENT}: torchvision's {type(module).__name__} reads its weights and calls none of its modules. "
                f"Name what it returns: '{parent}'"
            )
    return SILENT
