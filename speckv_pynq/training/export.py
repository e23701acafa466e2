"""From the network's floats to the predictor's fixed point."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from speckv_pynq import spec
from speckv_pynq.predictor import Predictor
from speckv_pynq.training import network as net

GATE_UNIT = 2.0**-13


def predictor_of(
    network: net.TokenNetwork,
    classes: npt.NDArray[np.uint16],
    opened: int,
    bonus: npt.NDArray[np.int16],
) -> Predictor:
    """Every number rounded to the nearest that fixed point has."""
    scales = net.row_scales(network.rows)
    codes = (network.rows / (scales * net.ROW_UNIT)).round()

    def weights(name: str) -> npt.NDArray[np.int8]:
        return np.stack([_int8(getattr(layer, name), net.WEIGHT_UNIT) for layer in network.layers])

    bias = [layer.bias_ih_l0 + layer.bias_hh_l0 for layer in network.layers]
    return Predictor(
        input=weights("weight_ih_l0"),
        recurrent=weights("weight_hh_l0"),
        bias=np.stack([_fixed(b, GATE_UNIT, 1 << 20).astype(np.int32) for b in bias]),
        projection=weights("weight_hr_l0"),
        codes=_fixed(codes, 1, net.CODE_LIMIT).astype(np.int8),
        scales=scales[:, 0].cpu().numpy().astype(np.uint8),
        token_bias=_int8(network.token_bias, net.BIAS_UNIT),
        class_rows=_int8(network.class_rows, net.ROW_UNIT),
        class_bias=_int8(network.class_bias, net.BIAS_UNIT),
        classes=classes,
        opened=opened,
        sigmoid=sigmoid_table(),
        bonus=bonus,
    )


def sigmoid_table() -> npt.NDArray[np.int16]:
    """(2048,) int16: the sigmoid from -8 in steps of 1 / 128, in 2**-15."""
    half = spec.PREDICTOR_SIGMOID // 2
    x = (np.arange(2 * half) - half) / 128
    return np.minimum(np.rint(2.0**15 / (1 + np.exp(-x))), 32767).astype(np.int16)


def _fixed(x: torch.Tensor, unit: float, limit: int) -> npt.NDArray[Any]:
    return (x.detach() / unit).round().clamp(-limit, limit).cpu().numpy()


def _int8(x: torch.Tensor, unit: float) -> npt.NDArray[np.int8]:
    return _fixed(x, unit, 127).astype(np.int8)
