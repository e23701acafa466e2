"""`speckv generate`: text from a model whose KV cache lives in SpecKV's tiers."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output, mb
from speckv_pynq.errors import ConfigError

if TYPE_CHECKING:
    from speckv_pynq.bench.models import Loaded

DESCRIPTION = """\
Generates text, printed as it comes, with a SpecKVCache; then says what the cache held. A model with a chat template
gets the prompt as a user's message; --no-chat gives it as it is.
"""
EPILOG = """\
examples:
  speckv generate --prompt "What is a KV cache?"
  speckv generate --model DIR --prompt-file notes.txt --scheme int4 --l1-mb 64 --max-new-tokens 200
  cat notes.txt | speckv generate --prompt-file - --temperature 0.7 --seed 1
  speckv generate --prompt "What is a KV cache?" --scheme klt --codebook layer.safetensors

JSON keys: text, prompt_tokens, new_tokens, tokens_per_s (after the first token), first_token_s, ratio_records,
ratio_held, held_bytes, fp16_bytes, hits.
"""


def register(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "generate", help="text from a model directory", description=DESCRIPTION, epilog=EPILOG
    )
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="TEXT")
    prompt.add_argument("--prompt-file", metavar="FILE", help="'-': stdin")
    parser.add_argument(
        "--max-new-tokens",
        type=options.positive,
        default=128,
        metavar="N",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="0, the default: the most likely token",
    )
    parser.add_argument("--seed", type=int, default=0, help="of sampling; default: %(default)s")
    parser.add_argument("--no-chat", action="store_true", help="do not use the chat template")
    options.add_scheme(parser)
    options.add_codebook(parser)
    options.add_model(parser)
    options.add_cache(parser)
    options.add_budgets(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, output: Output) -> int:
    from speckv_pynq.bench import models

    if arguments.temperature < 0:
        raise ConfigError(f"--temperature {arguments.temperature} < 0")
    text = _prompt_text(arguments)
    config = options.cache_config(arguments, arguments.scheme, codebook=arguments.codebook)
    with output.waiting("loading the model"):
        loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
    figures = _generate(loaded, text, config, arguments, output)
    seconds = figures["first_token_s"]
    hits = figures["hits"]
    output.note(
        f"{figures['prompt_tokens']} + {figures['new_tokens']} tokens, first after {seconds:.2f} s, then "
        f"{figures['tokens_per_s']:.1f} a second; cache {mb(figures['fp16_bytes'])} in FP16, "
        f"{mb(figures['held_bytes'])} held ({figures['ratio_held']:.2f}x, records {figures['ratio_records']:.2f}x); "
        f"blocks read: L1 {hits['l1']}, L2 {hits['l2']}, L3 {hits['l3']}"
    )
    output.json("generate", figures)
    return 0


def _generate(
    loaded: Loaded, text: str, config: Any, arguments: argparse.Namespace, output: Output
) -> dict[str, Any]:
    import torch

    from speckv_pynq.integrations.transformers import SpecKVCache

    torch.manual_seed(arguments.seed)
    ids = _encode(loaded, text, arguments.no_chat)[None].to(loaded.model.device)
    stream = _Stream(loaded.tokenizer, output)
    sampling: dict[str, Any] = {"do_sample": False}
    if arguments.temperature:
        sampling = {"do_sample": True, "temperature": arguments.temperature}
    with warnings.catch_warnings(), SpecKVCache.for_model(loaded.model, config) as cache:
        warnings.simplefilter("ignore", FutureWarning)  # newer releases call past_key_values cache
        started = time.perf_counter()
        loaded.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=arguments.max_new_tokens,
            streamer=stream,
            **sampling,
        )
        stats = cache.stats()
    times = stream.times
    after_first = times[-1] - times[0]
    return {
        "model": loaded.name,
        "scheme": config.scheme,
        "text": stream.text,
        "prompt_tokens": ids.shape[1],
        "new_tokens": len(times),
        "first_token_s": times[0] - started,
        "tokens_per_s": (len(times) - 1) / after_first if after_first else float("nan"),
        "ratio_records": stats.ratio_records,
        "ratio_held": stats.ratio_held,
        "fp16_bytes": stats.fp16_bytes,
        "held_bytes": stats.held_bytes,
        "hits": {"l1": stats.tiers.hits_l1, "l2": stats.tiers.hits_l2, "l3": stats.tiers.misses},
    }


class _Stream:
    """What generate() gives its tokens to: prints text once it is whole, notes when each token came."""

    def __init__(self, tokenizer: Any, output: Output) -> None:
        self._tokenizer, self._output = tokenizer, output
        self._ids: list[int] = []
        self._prompt_seen = False
        self.text = ""
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        if not self._prompt_seen:  # the first call brings the prompt
            self._prompt_seen = True
            return
        self.times.append(time.perf_counter())
        self._ids += value.reshape(-1).tolist()
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        if not text.endswith("\ufffd"):  # the rest of a character may still come
            self._print(text)

    def end(self) -> None:
        self._print(self._tokenizer.decode(self._ids, skip_special_tokens=True))
        self._write("\n")

    def _print(self, text: str) -> None:
        self._write(text[len(self.text) :])
        self.text = text

    def _write(self, text: str) -> None:
        self._output.console.file.write(text)
        self._output.console.file.flush()


def _prompt_text(arguments: argparse.Namespace) -> str:
    if arguments.prompt is not None:
        text = arguments.prompt
    elif arguments.prompt_file == "-":
        text = sys.stdin.read()
    else:
        try:
            text = Path(arguments.prompt_file).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise ConfigError(f"--prompt-file {arguments.prompt_file}: {error.strerror}") from error
    if not text.strip():
        raise ConfigError("the prompt is empty")
    return str(text)


def _encode(loaded: Loaded, text: str, plain: bool) -> Any:
    if getattr(loaded.tokenizer, "chat_template", None) and not plain:
        text = loaded.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
    return loaded.encode(text)
