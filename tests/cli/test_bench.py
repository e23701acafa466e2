"""`speckv bench` on little data: schema, and that figures are about what they say."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.requires("libspeckv", "torch", "transformers")


def test_codec(speckv, model_folder, text_file):
    for module in ("zstandard", "lz4.frame", "blosc2"):
        pytest.importorskip(module)
    ran = speckv(
        "bench", "codec", "--model", model_folder, "--text", text_file, "--tokens", 320, "--repeats", 1
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    results = {result["scheme"]: result for result in ran.figures["results"]}
    assert {"memcpy", "raw", "int4", "int8_delta_rle", "zstd -1", "zstd -3", "lz4"} < set(results)
    assert sum(name.startswith("blosc2 ") for name in results) == 4
    for result in results.values():
        assert set(result) >= {"scheme", "encode_gb_s", "decode_gb_s", "ratio"}
        assert result["encode_gb_s"] > 0
        assert result["decode_gb_s"] > 0
    assert (
        ran.figures["bytes"] == 2 * 10 * 2 * 32 * 64 * 2
    )  # layers, blocks, kinds, tokens, width, fp16
    assert results["memcpy"]["ratio"] == 1
    assert results["raw"]["ratio"] == 8192 / (8192 + 64)
    assert 3 < results["int4"]["ratio"] < 4
    assert ran.figures["machine"]["kernels"]


def test_generate(speckv, model_folder):
    ran = speckv(
        "bench", "generate", "--model", model_folder, "--prompt-tokens", 300, "--new-tokens", 3
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    results = {result["name"]: result for result in ran.figures["results"]}
    assert list(results) == ["DynamicCache", "all_l1", "quarter_int4", "quarter_raw"]
    for name in ("all_l1", "quarter_int4", "quarter_raw"):
        assert ran.figures[f"{name}_ratio"] == results[name]["ratio"] > 0
    assert results["all_l1"]["l1_share"] == 1
    assert 0.2 < results["quarter_int4"]["l1_share"] < 0.3
    assert 0.2 < results["quarter_raw"]["l1_share"] < 0.3


def test_klt_where_there_is_a_codebook(speckv, model_folder, text_file, codebook_file):
    model = ("--model", model_folder, "--codebook", codebook_file)
    ran = speckv(
        "bench", "codec", *model, "--text", text_file, "--tokens", 320, "--repeats", 1
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    klt = next(result for result in ran.figures["results"] if result["scheme"] == "klt")
    assert klt["ratio"] > 3
    assert klt["decode_gb_s"] > 0
    parts = ran.figures["klt_parts"]
    assert parts["entropy_decode_gb_s"] > klt["decode_gb_s"]
    assert 0 <= parts["decode_peak_share"] < 1
    ran = speckv("bench", "generate", *model, "--prompt-tokens", 300, "--new-tokens", 3)
    assert (ran.code, ran.err) == (0, "")
    assert ran.figures["all_l1_klt_ratio"] > 0
    assert ran.figures["quarter_klt_ratio"] > 0


def test_memory(speckv):
    ran = speckv(
        "bench", "memory", "--tokens", 4096, "--layers", 4, "--processes", 1, "--scheme", "raw"
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    figures = ran.figures
    assert {"pss_mb", "accounted_mb", "difference_percent"} <= set(figures)
    parts = ("l1_mb", "l2_mb", "l3_mb", "metadata_mb", "exact_mb", "workspace_mb")
    assert figures["accounted_mb"] == pytest.approx(sum(figures[part] for part in parts))
    assert figures["fp16_mb"] == 4096 * 4 * 3 * 64 * 2 * 2 / 1e6
    # So small a cache drowns in what a process takes anyway; the slow test has the real one.
    assert abs(figures["difference_percent"]) < 30


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int4", "raw"])
def test_memory_of_32k_tokens(speckv, scheme):
    figures = speckv("bench", "memory", "--scheme", scheme, "--processes", 1).figures
    assert abs(figures["difference_percent"]) <= 10


def test_a_child_that_fails_is_one_line(speckv):
    ran = speckv("bench", "memory", "--head-dim", 60, "--processes", 1)
    assert ran.code == 2
    assert "head_dim" in ran.err
    assert ran.err.count("\n") == 1


def test_tiers(speckv):
    ran = speckv("bench", "tiers", "--repeats", 1, "--blocks", 16)
    assert (ran.code, ran.err) == (0, "")
    figures = ran.figures
    assert figures["lookups_per_s"] > 1e6  # loose: the machine may be busy
    assert (
        0 < figures["access_hit_c_us"] < figures["access_hit_us"] < figures["access_view_us"] < 100
    )
    assert figures["fetch_gb_s"] > 0
    assert figures["codec_gb_s"] > 0


def test_a_common_prompt_is_held_once(speckv, model_folder):
    ran = speckv(
        "bench", "sharing", "--model", model_folder, "--conversations", 3, "--prompt-tokens", 110, "--own-tokens", 70
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    assert ran.figures["prompt_copies"] == 1
    assert ran.figures["prompt_blocks"] == 2 * 3  # layers, blocks of 32 behind the sinks
    assert ran.figures["smaller"] > 1.5


def test_prefetch(speckv):
    ran = speckv(
        "bench", "prefetch", "--repeats", 2, "--blocks", 64,
        "--rounds", 1, "--steps", 1, "--tokens", 512, "--layers", 2,
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    figures = ran.figures
    assert 0 < figures["hit_idle_us"] < 20_000
    assert figures["hit_us"] <= figures["hit_p99_us"]
    assert figures["call_us_per_block"] > 0
    # Were a hit to wait, there would be one a prefetch.
    assert figures["hits"] > 2 * figures["repeats"]
    assert 0.25 < figures["on_time"] <= 1
    assert figures["link_over_demand"] == pytest.approx(1.2)
    assert 0 <= figures["wasted"] < 1
    assert min(figures["prefetch_ms"], figures["demand_ms"], figures["resident_ms"]) > 0
    assert "a MODEL" in ran.out


def test_soak(speckv):
    ran = speckv("bench", "soak", "--seconds", 0.5, "--sequences", 60)
    assert (ran.code, ran.err) == (0, "")
    results = {result["case"]: result for result in ran.figures["results"]}
    assert list(results) == ["c", "python int4", "python raw"]
    for result in results.values():
        assert min(result["blocks_read"], result["steps"], result["rss_start"]) > 0


def test_faults(speckv):
    ran = speckv("bench", "faults", "--count", 500)
    assert (ran.code, ran.err) == (0, "")
    assert "wrong bytes 0, leaks 0, hangs 0" in ran.out
    assert ran.figures["count"] == sum(ran.figures["injected"].values()) >= 500


def test_fragmentation(speckv):
    ran = speckv("bench", "fragmentation", "--requests", 3000, "--pool", 32, "--occupancy", 0.5)
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.figures["hours"]) == 24
    assert ran.figures["end_held_bytes"] == 0
