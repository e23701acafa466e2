"""Settings of a system: from code, a TOML file, the environment; validated once."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

from speckv_pynq import spec
from speckv_pynq.config import POLICIES, Policy, PoolName, TierConfig
from speckv_pynq.errors import ConfigError, DependencyMissing

GIB: Final = 1 << 30
ENVIRONMENT: Final = "SPECKV_"
RETURNS: Final = "returns"  # a policy that only a system has: it knows requests
TABLE: Final = "speckv"  # of a TOML file
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class SystemConfig:
    """What a CXLSpecKVSystem is opened with.

    l1_size_gb, l2_size_gb, l3_size_gb: hard budgets of the tiers, in GiB; memory is taken as it is used.
    prefetch_depth: blocks that prefetch_step asks for unless told otherwise. num_fpga_engines: kernels at work at once;
    0: what the device has (csim: one a core). fpga_clock_mhz: what rates of the hardware are stated for; csim has no
    clock, and an overlay runs at the one that it was built with. device: "csim", or "pynq" with a board or its
    overlay on csim. scheme: name of a spec.Scheme, lower case. policy, share_equal, l3_pool: see TierConfig;
    policy "returns": L1 is kept by when requests are expected back (CXLSpecKVSystem.idle).
    lease_s: how long an agent may stay silent before it is fenced. ConfigError names a setting out of its range.
    """

    l1_size_gb: float = 12.0
    l2_size_gb: float = 3.0
    l3_size_gb: float = 128.0
    prefetch_depth: int = 4
    num_fpga_engines: int = 1
    fpga_clock_mhz: float = 800.0
    device: str = "csim"
    scheme: str = "int4"
    block_tokens: int = spec.BLOCK_TOKENS
    policy: Policy | Literal["returns"] = "dense"
    share_equal: bool = True
    l3_pool: str = "device"
    lease_s: float = 10.0

    def __post_init__(self) -> None:
        for name, kind in _TYPES.items():
            _check_type(name, kind, getattr(self, name))
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"{name} {value} is not within {least}..{most}")
        for name, allowed_names in (
            ("scheme", [scheme.name.lower() for scheme in spec.Scheme]),
            ("policy", [*POLICIES, RETURNS]),
            ("block_tokens", list(spec.BLOCK_TOKENS_ALLOWED)),
        ):
            if getattr(self, name) not in allowed_names:
                raise ConfigError(f"{name} {getattr(self, name)!r} is not one of {allowed_names}")
        PoolName.parse(self.l3_pool)

    @property
    def tiers(self) -> TierConfig:
        """The budgets in bytes, and the rest that the tiers go by."""
        return TierConfig(
            int(self.l1_size_gb * GIB),
            int(self.l2_size_gb * GIB),
            int(self.l3_size_gb * GIB),
            "dense" if self.policy == RETURNS else self.policy,
            self.share_equal,
            self.l3_pool,
        )

    @classmethod
    def load(
        cls, path: Path | str | None = None, environment: Mapping[str, str] | None = None
    ) -> SystemConfig:
        """Defaults, over them the table [speckv] of a TOML file, over those SPECKV_L1_SIZE_GB=16 and so on.

        path: None: the file that SPECKV_CONFIG names, if it is set. environment: None: the process's own. A variable
        SPECKV_... that is no setting is left alone, it may be another part's; a key of the file must be a setting.
        """
        env = os.environ if environment is None else environment
        path = path or env.get(f"{ENVIRONMENT}CONFIG") or None
        config = cls() if path is None else replace(cls(), **_from_file(Path(path)))
        return replace(config, **_from_environment(env))


def _check_type(name: str, kind: type, value: Any) -> None:
    allowed = (int, float) if kind is float else (kind,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{name} {value!r} is not {_ARTICLE[kind]}")
    if kind is float and not math.isfinite(cast(float, value)):
        raise ConfigError(f"{name} {value} is not finite")


_TYPES: Final = {field.name: type(field.default) for field in fields(SystemConfig)}
_ARTICLE: Final = {int: "an int", float: "a number", str: "a string", bool: "a bool"}
_RANGES: Final = (
    ("l1_size_gb", 0, 1 << 15),
    ("l2_size_gb", 2**-20, 1 << 15),
    ("l3_size_gb", 2**-20, 1 << 15),
    ("prefetch_depth", 0, 1 << 16),
    ("num_fpga_engines", 0, 256),
    ("fpga_clock_mhz", 1, 10_000),
    ("lease_s", 1e-3, 1e6),
)


def _from_file(path: Path) -> dict[str, Any]:
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    try:
        toml: Any = importlib.import_module(name)
    except ModuleNotFoundError:
        raise DependencyMissing("TOML files need Python 3.11, or: pip install tomli") from None
    try:
        found = toml.loads(path.read_text(encoding="utf-8")).get(TABLE, {})
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (toml.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: {TABLE} is not a table")
    names = [field.name for field in fields(SystemConfig)]
    for name in found:
        if name not in names:
            raise ConfigError(f"{path}: {TABLE}.{name} is not one of {', '.join(names)}")
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, kind in _TYPES.items():
        variable = ENVIRONMENT + name.upper()
        text = environment.get(variable)
        if text is None:
            continue
        try:
            out[name] = _parse(kind, text.strip())
        except ValueError:
            raise ConfigError(f"{variable}={text!r} is not {_ARTICLE[kind]}") from None
    return out


def _parse(kind: type, text: str) -> Any:
    if kind is not bool:
        return kind(text)
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError(text)
    return text.lower() in _TRUE
