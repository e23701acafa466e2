"""hls/check_synthesis.py: each rule finds what breaks it, at its line, and a good kernel passes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.requires("g++")

HLS = Path(__file__).resolve().parents[2] / "hls"
SHIM = HLS / "csim/shim"

PORTS = """
#pragma HLS INTERFACE m_axi port = in bundle = gmem_in offset = slave
#pragma HLS INTERFACE s_axilite port = in bundle = control
#pragma HLS INTERFACE m_axi port = out bundle = gmem_out offset = slave
#pragma HLS INTERFACE s_axilite port = out bundle = control
#pragma HLS INTERFACE s_axilite port = count bundle = control
#pragma HLS INTERFACE s_axilite port = return bundle = control
"""
HELPERS = """
struct Pair { int32_t a, b; };
constexpr uint32_t LANES = 32;
static constexpr int32_t TABLE[2][2] = {{1, 2}, {3, 4}};
constexpr int32_t table_sum() { int32_t s = 0; for (int i = 0; i < 2; ++i) s += TABLE[i][i]; return s; }
template <uint32_t N> static int32_t sum(const int32_t (&values)[N]) {
  int32_t s = 0;
ALL:
  for (uint32_t i = 0; i < N; ++i) {
#pragma HLS UNROLL  // an adder tree
    s += values[i];
  }
  return s;
}
template <uint32_t N> static int32_t halves(int32_t x) {
  if constexpr (N > 1) return halves<N / 2>(x) + 1;
  return x;
}
"""
BODY = """
  int32_t values[LANES];
#pragma HLS ARRAY_PARTITION variable = values complete dim = 1
  constexpr int32_t FIRST = table_sum();
BACK:
  for (uint32_t i = LANES; i-- > 0;) values[i] = FIRST;
  Pair p = {0, 0}, q = p;
BATCH:
  for (uint32_t i = 0; i < count; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = LANES
    q = p;
    out[i] = in[i];
    p.a += sum(values) + halves<8>(TABLE[i & 1][0]) + q.b;
  }
"""
MACRO = "#define MOST 4\n"
LOOP = "  int s = 0;\nL:\n  for (uint32_t i = 0; i < count; ++i) {\n"

# rule -> (code before the top, code in the top, what the finding says); the line found ends in `// here`
BAD = {
    "dynamic-memory: new": ("", "int* made = new int; // here", "heap"),
    "dynamic-memory: malloc": ("", "void* made = __builtin_malloc(4); // here", "heap"),
    "dynamic-memory: array": ("", "int a[count]; // here", "variable size"),
    "recursion": ("static int g(int);\nstatic int f(int x) { return g(x); }\n"
                  "static int g(int x) { return x ? f(x - 1) : 0; } // here\n", "f(1);", "f -> g -> f"),
    "exception": ("", "if (count) throw 1; // here", "Verdict"),
    "virtual": ("struct B { virtual int f() { return 1; } // here\n};\n", "", "virtual function f"),
    "function-pointer": ("static int f(int x) { return x; }\n", "int (*g)(int) = &f; // here", "g"),
    "function-pointer: field": ("struct V { int (*f)(int); // here\n};\n", "", "f"),
    "std": ("#include <array>\n", "std::array<int, 4> a; // here", "std::array"),
    "std: field": ("#include <vector>\nstruct V { std::vector<int>* v; // here\n};\n", "", "std::vector"),
    "goto": ("", "uint32_t i = 0;\nAGAIN: ++i;\nif (i < 4) goto AGAIN; // here", "goto"),
    "static": ("static int f() { static int n = 0; return ++n; } // here\n", "f();", "n keeps"),
    "static: global": ("static int n;\n", "++n; // here", "n keeps"),
    "libm": ("#include <cmath>\n", "double d = std::sqrt(2.0 * count); // here", "sqrt"),
    "libm: builtin": ("", "float d = __builtin_expf(1.0f * count); // here", "expf"),
    "host-only": ("#include <cstdio>\n", 'std::printf("x"); // here', "printf"),
    "host-only: asm": ("", '__asm__("nop"); // here', "assembly"),
    "host-only: in a template": ("#include <cstdlib>\ntemplate <class T> static T f(T x) {\n"
                                 "  if (x) std::abort(); // here\n  return x; }\n", "f(count);", "abort"),
    "loop-label": ("", "for (int i = 0; i < 4; ++i) { // here\n}", "label"),
    "loop-bound": ("", LOOP.replace("{", "{ // here") + "  s += i; }", "TRIPCOUNT"),
    "loop-bound: while": ("", "uint32_t n = count;\nL: while (n) { // here\n n >>= 1; }", "TRIPCOUNT"),
    "loop-bound: endless": ("", "L: for (;;) { // here\n#pragma HLS LOOP_TRIPCOUNT max = 4\n }", "end"),
    "loop-bound: no end": ("", "L: for (int i = 0;; ++i) { // here\n#pragma HLS LOOP_TRIPCOUNT max = 4\n}", "end"),
    "loop-bound: flag": ("", "bool go = count;\nL: for (; !go;) { // here\n go = !go; }", "TRIPCOUNT"),
    "loop-bound: other": ("", "L: for (int i = 0; count < 4; ++i) { // here\n count *= 2; }", "TRIPCOUNT"),
    "loop-bound: while (true)": ("", "L: while (true) { // here\n#pragma HLS LOOP_TRIPCOUNT max = 4\n }", "end"),
    "loop-bound: inner pragma": ("", LOOP.replace("{", "{ // here") + "M: for (uint32_t j = 0; j < count; ++j) {\n"
                                 "#pragma HLS LOOP_TRIPCOUNT max = 4\n } }", "TRIPCOUNT"),
    "loop-in-pipeline: unroll": ("", LOOP.replace("{", "{ // here") + "#pragma HLS LOOP_TRIPCOUNT max = 4\n"
                                 "#pragma HLS UNROLL\n  s += i; }", "factor"),
    "loop-in-pipeline": ("static void f(uint32_t n) {\nL:\n  for (uint32_t i = 0; i < n; ++i) {\n"
                         "#pragma HLS LOOP_TRIPCOUNT max = 4\n  }\n}\n",
                         "M:\n  for (int i = 0; i < 4; ++i) { // here\n#pragma HLS PIPELINE II = 1\n    f(count); }",
                         "cannot be unrolled"),
    "pragma: name": ("", "#pragma HLS UNROL // here", "UNROL"),
    "pragma: variable": ("", "#pragma HLS ARRAY_PARTITION variable = gone complete // here", "gone"),
    "pragma: port": ("", "#pragma HLS INTERFACE s_axilite port = gone // here", "gone"),
    "pragma: macro": (MACRO, LOOP + "#pragma HLS LOOP_TRIPCOUNT max = MOST // here\n  s += i; }", "macro"),
    "pragma: expression": ("", LOOP + "#pragma HLS LOOP_TRIPCOUNT max = 2 * LANES // here\n }", "2*LANES"),
    "pragma: late constant": ("", LOOP + "#pragma HLS LOOP_TRIPCOUNT max = LATE // here\n }", "LATE"),
    "pragma: place": ("", "#pragma HLS LOOP_TRIPCOUNT max = 4 // here", "outside a loop"),
    "compile": ("", "int x = nobody; // here", "nobody"),
}  # fmt: skip


def load() -> ModuleType:
    module_spec = importlib.util.spec_from_file_location(
        "check_synthesis", HLS / "check_synthesis.py"
    )
    module = importlib.util.module_from_spec(module_spec)
    sys.modules["check_synthesis"] = module
    module_spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    return load()


def kernel(folder: Path, before: str = "", inside: str = "", ports: str = PORTS) -> Path:
    """A top with two pointers and a scalar, good but for what is put into it."""
    path = folder / "kv_case.cpp"
    path.write_text(
        "#include <ap_int.h>\n#include <cstdint>\n"
        f"{HELPERS}{before}"
        'extern "C" void kv_case(const ap_uint<512>* in, ap_uint<512>* out, uint32_t count) {'
        f"{ports}{BODY}{inside}\n}}\nconstexpr uint32_t LATE = 4;\n"
    )
    return path


def test_good_kernel_passes(checker: ModuleType, tmp_path: Path) -> None:
    assert checker.check([kernel(tmp_path)], [tmp_path], SHIM) == []


@pytest.mark.parametrize("case", BAD)
def test_rule_finds_what_breaks_it(checker: ModuleType, tmp_path: Path, case: str) -> None:
    before, inside, said = BAD[case]
    path = kernel(tmp_path, before, inside)
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "// here" in text)
    found = checker.check([path], [tmp_path], SHIM)
    assert [(f.path, f.line, f.rule) for f in found] == [(str(path), line, case.split(":")[0])]
    assert said in found[0].text


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("m_axi port = in bundle = gmem_in offset = slave", "pointer in has no m_axi"),
        ("bundle = gmem_out", "m_axi of out names no bundle"),
        ("s_axilite port = out bundle = control", "out has no s_axilite"),
        ("s_axilite port = count bundle = control", "count has no s_axilite"),
        ("s_axilite port = return bundle = control", "return has no s_axilite"),
    ],
)
def test_port_without_interface_is_found(
    checker: ModuleType, tmp_path: Path, missing: str, said: str
) -> None:
    whole = f"#pragma HLS INTERFACE {missing}\n"
    ports = PORTS.replace(whole if whole in PORTS else missing, "")
    (finding,) = checker.check([kernel(tmp_path, ports=ports)], [tmp_path], SHIM)
    assert finding.rule == "port"
    assert said in finding.text


def test_what_synthesis_does_not_see_is_free(checker: ModuleType, tmp_path: Path) -> None:
    host = "#include <vector>\nstatic int host() { std::vector<int> v(3); return new int[2][0]; }\n"
    pragma = "#pragma HLS NONSENSE\n"
    before = f"#ifndef __SYNTHESIS__\n{host}#endif\n"
    inside = f"#ifndef __SYNTHESIS__\n{pragma}host();\n#endif\n"
    assert checker.check([kernel(tmp_path, before, inside)], [tmp_path], SHIM) == []


def test_host_code_that_no_top_calls_is_free(checker: ModuleType, tmp_path: Path) -> None:
    before = "#include <cstdlib>\nstatic inline void unused() { std::abort(); }\n"
    assert checker.check([kernel(tmp_path, before)], [tmp_path], SHIM) == []


def test_top_has_the_name_of_its_file(checker: ModuleType, tmp_path: Path) -> None:
    path = kernel(tmp_path).rename(tmp_path / "kv_other.cpp")
    (finding,) = checker.check([path], [tmp_path], SHIM)
    assert (finding.rule, finding.path) == ("top", str(path))


def test_no_tops_is_an_error(checker: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no kernel tops"):
        checker.check([], [tmp_path], SHIM)


@pytest.mark.requires("da4ml")
def test_synthesis_branch_compiles_with_the_open_headers(checker: ModuleType) -> None:
    """As Vitis HLS sees it (__VITIS_HLS__ too); test_other_builds.py runs it and compares bytes."""
    from tests.hls.test_other_builds import ap_int_folder

    tops = sorted((HLS / "generated").glob("kv_*.cpp"))
    source = checker.Source(tops, [HLS / "include", HLS / "generated"], [ap_int_folder()])
    assert source.errors() == []
