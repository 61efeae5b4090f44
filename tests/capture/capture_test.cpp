// Capture files: what is read, what is refused and where, however the bytes are cut.
#include "capture/capture.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>

#include "memory/timeline.hpp"
#include "passes/embedding_scratch.hpp"
#include "plan/captured.hpp"

namespace dryfit {
namespace {

const std::string kHead = "dryfit-capture 1\nscript\tpython train.py\ntorch\t2.9.1\ngpu\tNVIDIA H100 80GB HBM3\ncapability\t9.0\ngpus\t1\nparameters\t1024\nsteps\t2\nmicro_steps\t1\n";
const std::string kBody =
    "segment\tload\tweights\t0\n"
    "+\t4096\t0\tweights\tfloat32\t32x32\taten.empty\tmodel.layers.3.mlp.up\n"
    "segment\tfirst_step\tforward\t1\n"
    "+\t33554432\t0\tworkspace\tuint8\t33554432\tcublas_workspace\t\n"
    "+\t1000\t0\tactivations\tbfloat16\t500\taten.mm.default\tmodel.layers.3.mlp.up\n"
    "segment\tfirst_step\tbackward\t1\n"
    "+\t4096\t0\tgradients\tfloat32\t32x32\taten.mm.default\tmodel.layers.3.mlp.up\n"
    "-\t2\n"
    "segment\ttrain_step\tforward\t1\n"
    "+\t1000\t1\tactivations\tcomplex64\t1x2x3x4x5\taten.mm.default\tvisual\n"
    "end\n";

Result<Capture> read(std::string_view text, std::size_t piece = 1 << 20) {
  CaptureReader reader;
  for (std::size_t i = 0; i < text.size() && reader.feed(text.substr(i, piece)); i += piece) {}
  return reader.finish();
}

Machine machine_of(const char* gpu) { return *machine_from_flags({gpu, 1, std::nullopt, std::nullopt}); }

TEST(Capture, BecomesAProgram) {
  const auto c = read(kHead + "# a remark\nnew_word\tof a later writer\nnote\tloss.item(): 1.0\n" + kBody);
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c->run.script, "python train.py");
  EXPECT_EQ(c->run.parameters, 1024);
  EXPECT_EQ(c->run.compute_major, 9);
  ASSERT_EQ(c->run.notes.size(), 1u);
  const Program& p = c->program;
  ASSERT_EQ(p.tensors.size(), 5u);
  EXPECT_EQ(p.tensors[2].name(), "h.3.mlp.up: aten.mm.default");
  EXPECT_EQ(p.tensors[2].dtype, Dtype::bf16);
  EXPECT_EQ(p.tensors[4].stream, 1);
  EXPECT_EQ(p.tensors[4].shape.numel(), 120);
  EXPECT_EQ(p.events.size(), 6u);
  EXPECT_EQ(p.segments.size(), 4u);
  const Timeline t = run_timeline(p);
  EXPECT_EQ(t.peak.count, 4096 + 33554432 + 1024 + 4096);
  EXPECT_EQ(static_bytes(p).weights.count, 4096);
  EXPECT_EQ(static_bytes(p).gradients.count, 4096);
}

TEST(Capture, WorkspacesFollowTheGpu) {
  auto c = read(kHead + kBody);
  ASSERT_TRUE(c);
  const auto hopper = estimate_captured(*c, machine_of("h100"), {});
  const auto ada = estimate_captured(*c, machine_of("4090"), {});
  ASSERT_TRUE(hopper && ada);
  EXPECT_EQ(hopper->allocated.bytes - ada->allocated.bytes, mib(32) - kib(8 * 1024 + 128));
  EXPECT_EQ(hopper->verdict, Verdict::fits);
  const auto told = [](const Report& r, std::string_view word) { return std::ranges::any_of(r.warnings, [&](const std::string& w) { return w.find(word) != std::string::npos; }); };
  EXPECT_FALSE(told(*hopper, "compute capability"));
  EXPECT_TRUE(told(*ada, "compute capability 9.0"));
}

// The same head, three results of 8 MiB and what the kernel that made them took inside, as bytes of the peak above them.
std::int64_t taken_inside(const std::string& kernel, const char* gpu) {
  std::string text = kHead + "segment\tfirst_step\tbackward\t1\n";
  for (int i = 0; i < 3; ++i) text += "+\t8388608\t0\tactivations\tbfloat16\t4x8x2048x64\taten.op\tmodel.layers.2.attn\n";
  const auto c = read(text + kernel + "segment\tfirst_step\toptimizer\t0\n-\t0\n-\t1\n-\t2\nend\n");
  EXPECT_TRUE(c) << (c ? "" : c.error().message);
  if (!c) return -1;
  const Program p = fit_to(*c, target_of(machine_of(gpu)));
  for (const Event& e : p.events) EXPECT_EQ(&p.segment_of(static_cast<std::int32_t>(&e - p.events.data())), &p.segments[e.tensor < 3 && e.kind == Event::Kind::free ? 1 : 0]);
  EXPECT_EQ(std::ranges::count(p.events, Event::Kind::alloc, &Event::kind), std::ranges::count(p.events, Event::Kind::free, &Event::kind));
  return peak_of(p).count - 3 * 8388608;
}

TEST(Capture, KernelsTakeMoreInsideThanTheirResults) {
  const auto attention = [](const std::string& op, const std::string& dtype, const std::string& keys, const std::string& flags) {
    return "kernel\t_scaled_dot_product_" + op + "\t0\t" + dtype + "\t4x8x2048x64 " + keys + " " + keys + "\t" + flags + "\tmodel.layers.2.attn\n";
  };
  EXPECT_EQ(taken_inside("", "h100"), 0);
  // row sums and dq in fp32; where heads are shared dk and dv of each
  EXPECT_EQ(taken_inside(attention("flash_attention_backward", "bfloat16", "4x8x2048x64", "causal"), "a100"), 4 * 8 * 2048 * 4 * (1 + 64));
  EXPECT_EQ(taken_inside(attention("flash_attention_backward", "bfloat16", "4x2x2048x64", "causal"), "a100"), 4 * 8 * 2048 * (4 * (1 + 64) + 2 * 2 * 64));
  const AttentionBackwardCall call{.kind = Attention::efficient, .of = {4, 8, 2048, 2048, 64, 64, Dtype::bf16, false}, .key_heads = 8};
  const std::int64_t workspace = efficient_backward(call.of, 90).workspace;
  EXPECT_EQ(taken_inside(attention("efficient_attention_backward", "bfloat16", "4x8x2048x64", ""), "h100"), workspace + 4 * 8 * 2048 * 4);
  EXPECT_GT(taken_inside(attention("efficient_attention_backward", "float16", "4x8x2048x64", ""), "v100"), 0);
  EXPECT_EQ(taken_inside(attention("efficient_attention", "bfloat16", "4x8x2048x64", ""), "h100"), 0);
  EXPECT_EQ(taken_inside("kernel\tof_a_later_writer\tanything\n", "h100"), 0);
  // sorted: ids twice, their offsets; two of segments, two counts, partial sums of fp32 and where they lie
  const std::int64_t ids = 16 * 1024, rows = 50257, width = 768, partials = ids / 10 + ids;
  EXPECT_EQ(taken_inside("kernel\tembedding_dense_backward\t0\tfloat32\t16x1024 50257x768\t\t\n", "h100"), 5 * ids * 8 + 2 * 512 + (partials * 8 + 511) / 512 * 512 + partials * width * 4);
  EXPECT_EQ(taken_inside("kernel\tembedding_dense_backward\t0\tfloat32\t4x" + std::to_string(kUnsortedIds / 4) + " " + std::to_string(rows) + "x768\t\t\n", "h100"), 0);
}

TEST(Capture, TheScriptsAllocatorSettingsAreTaken) {
  auto c = read(kHead + "alloc_conf\texpandable_segments:True\n" + kBody);
  ASSERT_TRUE(c);
  EXPECT_TRUE(estimate_captured(*c, machine_of("h100"), {})->allocator.expandable_segments);
  auto bad = read(kHead + "alloc_conf\tno such thing\n" + kBody);
  ASSERT_TRUE(bad);
  EXPECT_EQ(estimate_captured(*bad, machine_of("h100"), {}).error().code, "bad_alloc_conf");
}

TEST(Capture, RefusesWithThePlace) {
  const std::string good = kHead + "segment\tload\tweights\t0\n";
  struct Case { std::string text; const char* code; const char* where; };
  for (const Case& c : {Case{"", "not_a_capture", "line 0"}, Case{"{\"a\":1}\n", "not_a_capture", "line 1"}, Case{std::string(1 << 17, 'x'), "not_a_capture", "line 1"}, Case{"dryfit-capture 2\n", "newer_capture", "line 1"},
                        Case{"dryfit-capture x\n", "not_a_capture", "line 1"}, Case{kHead + "+\t1\t0\tweights\tint8\t1\t\tw\n", "bad_capture", "line 10"}, Case{good + "+\t1\n", "bad_capture", "line 11"},
                        Case{good + "+\t-1\t0\tweights\tint8\t1\t\tw\n", "bad_capture", "line 11"}, Case{good + "+\t999999999999999999\t0\tweights\tint8\t1\t\tw\n", "bad_capture", "line 11"},
                        Case{good + "+\t1\t200\tweights\tint8\t1\t\tw\n", "bad_capture", "line 11"}, Case{good + "+\t1\t0\tsoup\tint8\t1\t\tw\n", "bad_capture", "line 11"}, Case{good + "-\t0\n", "bad_capture", "line 11"},
                        Case{good + "+\t1\t0\tweights\tint8\t1\t\tw\n-\t0\n-\t0\n", "bad_capture", "line 13"}, Case{good + "segment\tlunch\tx\t0\n", "bad_capture", "line 11"}, Case{good + "segment\tload\n", "bad_capture", "line 11"},
                        Case{good + "kernel\tembedding_dense_backward\n", "bad_capture", "line 11"}, Case{good + "kernel\tembedding_dense_backward\t0\tsoup\t8 8x8\t\t\n", "bad_capture", "line 11"},
                        Case{good + "kernel\tembedding_dense_backward\t0\tfloat32\t8\t\t\n", "bad_capture", "line 11"}, Case{good + "kernel\tembedding_dense_backward\t0\tfloat32\t8 8x8x8\t\t\n", "bad_capture", "line 11"},
                        Case{good + "kernel\tembedding_dense_backward\t0\tfloat32\t0 8x8\t\t\n", "bad_capture", "line 11"}, Case{good + "kernel\tembedding_dense_backward\t0\tfloat32\t1099511627776 1x1099511627776\t\t\n", "bad_capture", "line 11"},
                        Case{good + "kernel\t_scaled_dot_product_flash_attention_backward\t0\tbfloat16\t1x1x8x8 1x1x8x8 1x8x8\t\t\n", "bad_capture", "line 11"},
                        Case{kHead + "kernel\tembedding_dense_backward\t0\tfloat32\t8 8x8\t\t\n", "bad_capture", "line 10"},
                        Case{good + "parameters\tmany\n", "bad_capture", "line 11"}, Case{good + "end\n", "empty_capture", "line 11"}, Case{good + "+\t1\t0\tweights\tint8\t1\t\tw\n", "bad_capture", "line 11"},
                        Case{good + "+\t1\t0\tweights\tint8\t1\t\tw\nend\n+\t1\t0\tweights\tint8\t1\t\tw\n", "bad_capture", "line 13"}}) {
    const auto r = read(c.text);
    ASSERT_FALSE(r) << c.text.substr(0, 200);
    EXPECT_EQ(r.error().code, c.code) << c.text.substr(0, 200);
    EXPECT_EQ(r.error().where, c.where) << c.text.substr(0, 200);
    EXPECT_FALSE(r.error().hint.empty());
  }
}

TEST(Capture, MoreThanAnyMachineHoldsIsRefused) {
  std::string text = kHead + "segment\tload\tweights\t0\n";
  for (int i = 0; i < 5; ++i) text += "+\t281474976710656\t0\tweights\tint8\t1\t\tw\n";
  EXPECT_EQ(read(text).error().where, "line 15");
}

TEST(Capture, NamesCannotSteerATerminal) {
  const auto c = read(kHead + "segment\tload\tweights\t0\n+\t1\t0\tweights\tint8\t1\t\t\x1b[31mred\nend\n");
  ASSERT_TRUE(c);
  EXPECT_EQ(c->program.tensors[0].name(), "?[31mred");
}

TEST(Capture, TheSameHoweverItIsCut) {
  EXPECT_TRUE(rc::check("pieces", [] {
    std::string text = kHead + kBody;
    const auto place = *rc::gen::inRange<std::size_t>(0, text.size());
    if (*rc::gen::arbitrary<bool>()) text[place] = *rc::gen::arbitrary<char>();
    const auto whole = read(text), pieces = read(text, *rc::gen::inRange<std::size_t>(1, 40));
    RC_ASSERT(whole.has_value() == pieces.has_value());
    if (!whole) RC_ASSERT(whole.error().where == pieces.error().where && whole.error().message == pieces.error().message);
    else RC_ASSERT(run_timeline(whole->program).peak == run_timeline(pieces->program).peak);
  }));
}

}  // namespace
}  // namespace dryfit
