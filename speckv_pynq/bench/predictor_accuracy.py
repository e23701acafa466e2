"""How often the next token is among the first few that a predictor names, over the whole vocabulary."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from speckv_pynq.bench.models import Loaded
from speckv_pynq.bench.ngrams import NGrams
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.predictor import Predictor
from speckv_pynq.prefetch.tokens import TokenPredictor
from speckv_pynq.reference.predictor import History

MISSED = 1 << 20  # the rank of a token that was not named
TOPS = (1, 4, 8)
RESAMPLES = 2000
# Python's own sources, which no shipped predictor was trained on.
MODULES = (
    "argparse ast asyncio.base_events bdb calendar codecs configparser csv dataclasses difflib doctest email.message "
    "fractions ftplib functools gettext gzip heapq imaplib inspect ipaddress locale logging.handlers mailbox "
    "mimetypes optparse pathlib pdb pickle platform plistlib poplib pprint random sched shelve shlex shutil smtplib "
    "socket statistics string subprocess tarfile tempfile textwrap threading timeit tokenize trace traceback turtle "
    "typing unittest.case unittest.mock urllib.parse urllib.request uuid warnings weakref zipfile"
)

I64 = npt.NDArray[np.int64]
Ranks = Callable[
    [I64], I64
]  # (n, tokens) sequences -> (n, tokens - 1) rank of each next token, the best is 0


@dataclass(frozen=True)
class Accuracy:
    """Shares of next tokens among the first 1, 4 and 8 named, each with its 95 % interval, by sequence."""

    name: str
    top: dict[int, float]
    interval: dict[int, tuple[float, float]]


def code(modules: str = MODULES) -> str:
    """The sources of Python's own modules in a row."""
    found = []
    for name in modules.split():
        where = importlib.util.find_spec(name)
        if where is not None and where.origin and where.origin.endswith(".py"):
            found.append(Path(where.origin).read_text(encoding="utf-8", errors="replace"))
    return "\n\n".join(found)


def judge(name: str, ranks: I64, seed: int = 0) -> Accuracy:
    """From ranks, (sequences, steps); the interval is a bootstrap over sequences."""
    drawn = np.random.default_rng(seed).integers(0, len(ranks), (RESAMPLES, len(ranks)))
    top, interval = {}, {}
    for k in TOPS:
        of_each = (ranks < k).mean(axis=1)
        top[k] = float(of_each.mean())
        low, high = np.quantile(of_each[drawn].mean(axis=1), (0.025, 0.975))
        interval[k] = float(low), float(high)
    return Accuracy(name, top, interval)


def of_shares(model: NGrams) -> Ranks:
    """Of an n-gram model; of equal shares the lower token is better."""

    def ranks(sequences: I64) -> I64:
        out = np.empty((len(sequences), sequences.shape[1] - 1), np.int64)
        for i, tokens in enumerate(sequences):
            for at in range(len(tokens) - 1):
                shares = model.shares(tokens[max(0, at + 2 - model.order) : at + 1])
                token = tokens[at + 1]
                better = (shares > shares[token]).sum() + (shares[:token] == shares[token]).sum()
                out[i, at] = better
        return out

    return ranks


def of_copying(sequences: I64) -> I64:
    """What followed the same last tokens earlier in the sequence: the longest match first, then the most frequent."""
    out = np.full((len(sequences), sequences.shape[1] - 1), MISSED, np.int64)
    for i, tokens in enumerate(sequences.tolist()):
        history = History(len(tokens))
        for at, following in enumerate(tokens[1:]):
            history.push(tokens[at])
            found = history.followers()
            order = sorted(found, key=lambda token: found[token], reverse=True)
            if following in order:
                out[i, at] = order.index(following)
    return out


def of_predictor(predictor: Predictor) -> Ranks:
    """Of a token predictor on csim, all sequences at once, each from its beginning."""

    def ranks(sequences: I64) -> I64:
        rows, length = sequences.shape
        out = np.full((rows, length - 1), MISSED, np.int64)
        capacity = 1 << (length - 1).bit_length()
        with CsimDevice(1) as device, TokenPredictor(device, predictor, capacity, rows) as run:
            requests = np.arange(rows)
            for req_id in requests.tolist():
                run.open(req_id)
            for at in range(length - 1):
                named = run.step(requests, sequences[:, at]).token
                hit = named == sequences[:, at + 1, None]
                out[:, at] = np.where(hit.any(axis=1), hit.argmax(axis=1), MISSED)
        return out

    return ranks


def without_bonus(predictor: Predictor) -> Predictor:
    """The LSTM alone: nothing is gained by having followed the same tokens."""
    return replace(predictor, bonus=np.zeros_like(predictor.bonus))


def of_model(loaded: Loaded) -> Ranks:
    """Of the language model itself, which has seen the same tokens of the sequence."""

    @torch.inference_mode()
    def ranks(sequences: I64) -> I64:
        out = []
        for tokens in torch.from_numpy(sequences):
            logits = loaded.model(tokens[None].to(loaded.model.device)).logits[0, :-1].float()
            own = logits.gather(1, tokens[1:, None].to(logits.device))
            out.append((logits > own).sum(1).cpu().numpy())
        return np.stack(out)

    return ranks
