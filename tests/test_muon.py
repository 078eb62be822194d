import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from recseg.models.config import UNetConfig
from recseg.models.unet import UNet
from recseg.training.muon import Muon, orthogonalise
from recseg.training.optim import make_optimisers, parameter_groups


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 2**31 - 1))
def test_orthogonalised_matrix_has_the_same_singular_vectors_and_singular_values_near_one(
    rows: int, columns: int, seed: int
) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ orthogonalise(matrix) @ right.T  # diagonal where the singular vectors are the same
    assert torch.allclose(inside, torch.diag(inside.diagonal()), atol=1e-2)
    strong = values > 0.05 * values[0]  # five iterations lift a value by at most 485
    lifted = inside.diagonal()[strong]
    assert lifted.min() > 0.6 and lifted.max() < 1.3


def test_a_gradient_of_zero_moves_nothing_but_the_decay() -> None:
    weight = nn.Parameter(torch.ones(4, 6))
    weight.grad = torch.zeros(4, 6)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert torch.allclose(weight, torch.full((4, 6), 0.95))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has its own Muon since 2.9")
def test_agrees_with_torchs_own_on_matrices() -> None:
    torch.manual_seed(0)
    start = torch.randn(24, 40)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimisers = (
        Muon([ours], lr=1e-2, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(5):
        gradient = torch.randn(24, 40)
        for weight, optimiser in zip((ours, theirs), optimisers, strict=True):
            weight.grad = gradient.clone()
            optimiser.step()
    moved = (theirs - start).norm()
    assert moved > 0.1
    assert (ours - theirs).norm() < 0.02 * moved  # torch's iterates in bfloat16


def test_a_convolution_moves_as_the_matrix_of_its_filters_does() -> None:
    torch.manual_seed(0)
    start, gradient = torch.randn(8, 5, 3, 3), torch.randn(8, 5, 3, 3)
    filters = nn.Parameter(start.clone().contiguous(memory_format=torch.channels_last))
    matrix = nn.Parameter(start.flatten(1).clone())
    filters.grad, matrix.grad = gradient.clone(), gradient.flatten(1).clone()
    for weight in (filters, matrix):
        Muon([weight], lr=0.1).step()
    assert torch.allclose(filters.flatten(1), matrix, atol=1e-6)


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(7,\): Muon expects matrices"):
        Muon([nn.Parameter(torch.ones(7))])


def test_only_weights_between_features_go_to_muon() -> None:
    model = UNet(UNetConfig(num_classes=30, encoder_widths=(16, 24, 32), decoder_widths=(24,)))
    muon, adamw = make_optimisers("muon", parameter_groups(model, 1e-3, 1e-4, 0.01))
    names = {parameter: name for name, parameter in model.named_parameters()}
    hidden = {names[parameter] for group in muon.param_groups for parameter in group["params"]}
    others = {names[parameter] for group in adamw.param_groups for parameter in group["params"]}
    assert hidden | others == set(names.values()) and not hidden & others
    assert "encoder.stages.0.0.weight" in others and "classifier.weight" in others  # colours, classes
    assert "encoder.stages.0.3.weight" in hidden and "decoder.blocks.0.conv_skip.weight" in hidden
    assert {group["lr"] for group in muon.param_groups} == {1e-3, 1e-4}
    (alone,) = make_optimisers("adamw", parameter_groups(model, 1e-3, 1e-4, 0.01))
    assert sum(len(group["params"]) for group in alone.param_groups) == len(names)
