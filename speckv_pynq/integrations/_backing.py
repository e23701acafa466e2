"""The system below a cache."""

from __future__ import annotations

from typing import Any

from speckv_pynq import spec
from speckv_pynq.codebook import Codebook
from speckv_pynq.codec import BlockShape
from speckv_pynq.device import Device, open_device
from speckv_pynq.errors import ConfigError
from speckv_pynq.integrations._attention import use as use_sparse
from speckv_pynq.integrations._cache_config import CacheConfig
from speckv_pynq.integrations._codebook import codebook_for
from speckv_pynq.integrations._model import ModelShape
from speckv_pynq.system import CXLSpecKVSystem, Geometry, SystemConfig
from speckv_pynq.tiers import TierManager
from speckv_pynq.tiers.sharing import PrefixKeys


class Backing:
    """The system below a cache, shared with its forks and siblings; the last of them closes it."""

    def __init__(self, model_or_config: Any, config: CacheConfig) -> None:
        self.shape, self.config = ModelShape.of(model_or_config), config
        device = getattr(model_or_config, "device", None)
        on_cpu = device is None or device.type == "cpu"
        self.keeps_all = config.l1_bytes is None and on_cpu and not config.sparse
        self._users = 0
        dtype = config.block_dtype_for(self.shape.dtype)
        codebook = None
        if config.scheme == "klt":
            codebook = codebook_for(model_or_config, self.shape, dtype, config.codebook)
        self.span_layers = 1 if codebook is None else codebook.layer_count
        if config.sparse and self.span_layers > 1:
            raise ConfigError(
                f"the codebook joins {self.span_layers} layers in a record: sparse attention chooses blocks of each "
                "layer apart, use a codebook of scope layer"
            )
        if config.sparse:
            use_sparse(model_or_config)
        self.system = self._open(
            dtype, codebook, open_device(config.device, config.engines_for(on_cpu))
        )
        code = 0 if codebook is None else codebook.fingerprint
        salt = f"{self.system.geometry.fingerprint:x} {code:x} {config.scheme}"
        self.prefix_keys = PrefixKeys(salt.encode())

    def _open(
        self, dtype: spec.DType, codebook: Codebook | None, device: Device
    ) -> CXLSpecKVSystem:
        shape, config = self.shape, self.config
        block = BlockShape(
            config.block_tokens, self.span_layers * shape.heads, shape.head_dim, dtype
        )
        try:
            tiers = config.tiers_for(block, device, self.keeps_all)
        except BaseException:
            device.close()
            raise
        fingerprint = shape.fingerprint(dtype, config.block_tokens)
        return CXLSpecKVSystem(
            Geometry(shape.layers, shape.heads, shape.head_dim, dtype, fingerprint),
            SystemConfig(scheme=config.scheme, block_tokens=config.block_tokens),
            codebook,
            device=device,
            tiers=tiers,
        )

    @property
    def tiers(self) -> TierManager:
        return self.system.tiers

    def enter(self) -> None:
        self._users += 1

    def leave(self) -> None:
        self._users -= 1
        if not self._users:
            self.system.close()
