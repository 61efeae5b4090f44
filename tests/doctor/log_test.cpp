// A log gives the same facts however it is cut and however ranks interleave, in little memory.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>

#include "base/text.hpp"
#include "doctor/log.hpp"
#include "logs.hpp"
#include "messages.hpp"

namespace dryfit {
namespace {

LogFacts facts_of(std::string_view text, std::size_t piece = 1 << 20) {
  LogScanner scanner;
  for (std::size_t at = 0; at < text.size(); at += piece) scanner.feed(text.substr(at, piece));
  return scanner.finish();
}

// All that a diagnosis can see of it but line numbers.
std::string summary(const LogFacts& f) {
  std::string out;
  for (const OomEvent& e : f.events) {
    out += e.stream + "/" + std::to_string(e.rank.value_or(-1)) + "/" + std::string(name_of(e.oom.wording)) + "/" + std::to_string(e.oom.requested ? e.oom.requested->bytes.count : -1) + "/" + std::to_string(e.oom.idle ? e.oom.idle->bytes.count : -1) + "/" +
           std::to_string(e.steps_done) + "/" + std::to_string(e.repeats) + "/" + e.quote;
    for (const Frame& x : e.frames) out += "|" + x.file + ":" + std::to_string(x.line) + " " + x.function + " " + x.code;
    out += "\n";
  }
  for (const RunLog& r : f.runs) out += "run " + r.command + " " + std::to_string(r.layers.value_or(-1)) + " " + std::to_string(r.steps_done()) + " " + std::to_string(r.steps.seen) + "\n";
  return out;
}

TEST(Log, NanochatTellsItsConfiguration) {
  test::NanochatLog l;
  l.command = "OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- --depth=26 --run=x";
  const LogFacts f = facts_of(test::head(l) + test::validated() + test::step(0, 900) + test::step(1, 900) + "Peak memory usage: 50123.45MiB\n");
  ASSERT_EQ(f.runs.size(), 1u);
  const RunLog& r = f.runs[0];
  EXPECT_TRUE(r.nanochat && r.json_config && r.validated);
  EXPECT_EQ(r.command, l.command);
  EXPECT_EQ(r.layers, 26);
  EXPECT_EQ(r.heads, 13);
  EXPECT_EQ(r.width, 1664);
  EXPECT_EQ(r.vocab, 32768);
  EXPECT_EQ(r.device_batch, 32);
  EXPECT_EQ(r.seq_len, 2048);
  EXPECT_EQ(r.rank_tokens, 65536);
  EXPECT_EQ(r.all_tokens, 524288);
  EXPECT_EQ(r.total_batch, 1048576);
  EXPECT_EQ(r.grad_accum, 2);
  EXPECT_EQ(r.parameters, 1681786938);
  EXPECT_EQ(r.window_pattern, "SSSL");
  EXPECT_EQ(r.gpu, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(r.dtype, "torch.bfloat16");
  EXPECT_EQ(r.steps_done(), 2);
  EXPECT_EQ(r.steps.planned, 900);
  EXPECT_NEAR(r.peak->mib(), 50123.45, 0.01);
}

TEST(Log, TheFirstReleaseToo) {
  const LogFacts f = facts_of("Overriding: depth = 12\nOverriding: device_batch_size = 8\nVocab size: 65,536\nnum_layers: 12\nmodel_dim: 768\nnum_heads: 6\nnum_kv_heads: 6\nTokens / micro-batch / rank: 8 x 2048 = 16,384\nTokens / micro-batch: 16,384\nTotal batch size 524,288 => gradient accumulation steps: 32\nNumber of parameters: 185,597,952\n");
  const RunLog& r = f.runs.back();
  EXPECT_EQ(r.layers, 12);
  EXPECT_EQ(r.overridden.at("depth"), 12);
  EXPECT_EQ(r.parameters, 185597952);
  EXPECT_FALSE(r.json_config);
}

TEST(Log, StepsOfOtherPrograms) {
  struct Row { const char* text; std::int64_t step; double ms, tokens, mfu; };
  for (const Row& r : {Row{"iter 120: loss 3.2814, time 123.45ms, mfu 38.21%", 120, 123.45, -1, 0.3821}, Row{"step:7/1770 train_time:1100ms step_avg:157.4ms", 7, 157.4, -1, -1}, Row{"Step 12/1000 | loss 2.1 | 1,234.5 tokens/s", 12, -1, 1234.5, -1},
                       Row{"global_step=40, loss=1.25, lr=3e-4", 40, -1, -1, -1}, Row{"[2026-01-01] iteration  300/ 5000 | loss: 2.0 | step_time: 0.5s", 300, 500, -1, -1}, Row{"{\"step\": 99, \"loss\": 1.0, \"mfu\": 0.31}", 99, -1, -1, 0.31}}) {
    const auto s = read_step(r.text);
    ASSERT_TRUE(s && s->step) << r.text;
    EXPECT_EQ(*s->step, r.step) << r.text;
    EXPECT_NEAR(s->milliseconds.value_or(-1), r.ms, 1e-6) << r.text;
    EXPECT_NEAR(s->tokens_per_second.value_or(-1), r.tokens, 1e-6) << r.text;
    EXPECT_NEAR(s->mfu.value_or(-1), r.mfu, 1e-6) << r.text;
  }
  const auto bar = read_step("  3%|3         | 31/1000 [00:40<20:00,  1.24s/it, loss=2.2]");
  ASSERT_TRUE(bar && bar->bar);
  EXPECT_EQ(bar->step, 31);
  EXPECT_EQ(bar->planned, 1000);
  for (const char* none : {"Loading checkpoint shards: 100%|##| 3/3 [00:10<00:00, 3.4s/it]", "optimizer.step()", "Resuming optimization from step 1000 | loss", "Step 00250 | Validation bpb: 0.91", "step 12: val_loss 3.1", "", "Map: 10%| 5/50 [00:01<00:09, 5it/s]"}) EXPECT_FALSE(read_step(none)) << none;
}

TEST(Log, MemoryReadings) {
  struct Row { const char* text; double mib; };
  for (const Row& r : {Row{"step 10 | loss 2.0 | mem: 12.5GB", 12800}, Row{"max_memory_allocated = 10240.00 MiB", 10240}, Row{"Epoch(train) [1][50/100] time: 0.5 memory: 5432 loss: 1.2", 5432}, Row{"| 30%   60C    P2   300W / 350W |  20123MiB / 24576MiB |     98%      Default |", 20123}, Row{"18000 MiB, 24576 MiB", 18000}}) {
    const auto m = read_memory(r.text);
    ASSERT_TRUE(m) << r.text;
    EXPECT_NEAR(m->used.bytes.mib(), r.mib, 0.5) << r.text;
  }
  for (const char* none : {"CUDA out of memory. Tried to allocate 2.00 GiB", "remember 12 GB", "pin_memory: True", "memory", "member count: 100"}) EXPECT_FALSE(read_memory(none)) << none;
}

TEST(Log, WhoWroteALine) {
  struct Row { const char* line; const char* rest; std::int64_t rank; };
  for (const Row& r : {Row{"[rank3]: text", "text", 3}, Row{"[default7]:text", "text", 7}, Row{"[1,12]<stderr>: text", "text", 12}, Row{"5: text", "text", 5}, Row{"(Worker pid=9, ip=10.0.0.1) [rank2]: text", "text", 2}, Row{"text", "text", -1}, Row{"[rankle]: x", "[rankle]: x", -1},
                       Row{"12:30: x", "12:30: x", -1}, Row{"", "", -1}, Row{"[rank1]:[E1 x.cpp:3] text", "[E1 x.cpp:3] text", 1}}) {
    const StreamPrefix p = stream_prefix(r.line);
    EXPECT_EQ(p.rest, r.rest) << r.line;
    EXPECT_EQ(p.rank.value_or(-1), r.rank) << r.line;
  }
}

TEST(Log, FramesOfEveryKind) {
  struct Row { const char* line; const char* function; std::int64_t number; };
  for (const Row& r : {Row{"  File \"/a/b.py\", line 12, in forward", "forward", 12}, Row{"File ~/lib/python3.10/torch/nn/modules/module.py:1501, in Module._call_impl(self, *args, **kwargs)", "Module._call_impl", 1501}, Row{"/usr/lib/python3/torch/autograd/__init__.py in backward(tensors, grad)", "backward", 0},
                       Row{"\xE2\x94\x82 /home/u/train.py:88 in main                 \xE2\x94\x82", "main", 88}, Row{"  File \"C:\\Users\\x\\train.py\", line 3, in <module>", "<module>", 3}}) {
    const auto f = read_frame(r.line);
    ASSERT_TRUE(f) << r.line;
    EXPECT_EQ(f->function, r.function);
    EXPECT_EQ(f->line, r.number);
  }
  for (const char* none : {"x.py:12: UserWarning: hm", "python train.py --x", "no frame", ".py"}) EXPECT_FALSE(read_frame(none)) << none;
}

TEST(Log, TheCommandWithItsContinuations) {
  const LogFacts f = facts_of("$ NANOCHAT_DTYPE=float32 torchrun --nproc_per_node=2 \\\n    -m scripts.base_train -- \\\n    --depth=8\nVocab size: 32,768\n");
  EXPECT_EQ(f.runs.back().command, "NANOCHAT_DTYPE=float32 torchrun --nproc_per_node=2 -m scripts.base_train -- --depth=8");
  EXPECT_EQ(find_command("see File \"/usr/bin/torchrun\", line 8, in train"), "");
  EXPECT_EQ(find_command("python --version"), "");
}

TEST(Log, RunsInOneFile) {
  test::NanochatLog big, small;
  small.batch = 16;
  const std::string text = test::head(big) + test::traceback("/x/nanochat/gpt.py", "forward", "x = self.mlp(x)", test::modern({})) + test::head(small) + test::validated() + test::step(0, 9) + test::step(1, 9);
  const LogFacts f = facts_of(text);
  ASSERT_EQ(f.runs.size(), 2u);
  ASSERT_EQ(f.events.size(), 1u);
  EXPECT_EQ(f.run(f.events[0].run).device_batch, 32);
  EXPECT_EQ(f.runs.back().device_batch, 16);
  EXPECT_EQ(f.runs.back().steps_done(), 2);
}

TEST(Log, CountingAnewAfterAFailureIsAnotherRun) {
  std::string text;
  for (int i = 0; i < 9; ++i) text += "  " + std::to_string(i) + "/500 [00:02<10:00, 1.2s/it]\r";
  const LogFacts f = facts_of(text + test::modern({}) + "\n  0/500 [00:00<?, ?it/s]\r  1/500 [00:02<10:00, 1.2s/it]\r" + test::t1({}) + "\n");
  ASSERT_EQ(f.events.size(), 2u);
  EXPECT_NE(f.events[0].run, f.events[1].run);
  EXPECT_EQ(f.events[0].steps_done, 8);
  EXPECT_EQ(f.events[1].steps_done, 1);
  const LogFacts epochs = facts_of(text + text);  // a bar for each epoch is one run
  EXPECT_EQ(epochs.runs.size(), 1u);
}

TEST(Log, ColoursAndBarsAreSeenThrough) {
  const std::string plain = test::modern({});
  std::string coloured = "\x1b[31m\x1b[1mtorch.OutOf\x1b[0mMemoryError\x1b[0m" + plain.substr(plain.find(':'));
  coloured.replace(coloured.find("out of memory"), 3, "\x1b[4mout\x1b[0m");
  const LogFacts f = facts_of("  1/10 [00:01<00:09, 1.0it/s]\r  2/10 [00:02<00:08, 1.0it/s]\r" + coloured + "\r\n");
  ASSERT_EQ(f.events.size(), 1u);
  EXPECT_NEAR(f.events[0].oom.requested->bytes.gib(), 2, 1e-9);
  EXPECT_EQ(f.events[0].steps_done, 2);
  EXPECT_EQ(without_escapes("a\x1b]0;title\ab\x1b[2Kc\x1b(Bd\be"), "abcBe");
}

TEST(Log, TheSameMessageTwiceIsOne) {
  const std::string text = test::modern({});
  LogFacts f = facts_of(text + "\n" + text + "\n[rank0]: " + text + "\n");  // torch prints a rank's traceback bare and with its prefix
  ASSERT_EQ(f.events.size(), 1u);
  EXPECT_EQ(f.events[0].repeats, 3);
  EXPECT_EQ(f.events[0].rank, 0);
}

TEST(Log, CutAnywhere) {
  test::NanochatLog l;
  const std::string text = test::head(l) + test::validated() + test::step(0, 9) + test::traceback("/x/torch/_tensor.py", "backward", "torch.autograd.backward(", test::modern({}), 2) + test::async({}) + "\nstep 00001/00009 (1%) | loss: 1.0 | dt: 3.00ms\n";
  const std::string whole = summary(facts_of(text));
  ASSERT_NE(whole.find("malloc_async"), std::string::npos);
  for (std::size_t piece : {1u, 2u, 3u, 7u, 64u, 511u, 512u, 513u, 4096u}) EXPECT_EQ(summary(facts_of(text, piece)), whole) << piece;
}

// Each rank's lines in their order, ranks mixed at will.
TEST(Log, RanksInterleaveAsTheyLike) {
  EXPECT_TRUE(rc::check([] {
    const int ranks = *rc::gen::inRange(2, 6);
    std::vector<std::vector<std::string>> blocks;
    for (int r = 0; r < ranks; ++r) {
      test::Numbers n;
      n.device = r;
      std::vector<std::string> lines;
      std::string block = test::traceback("/x/nanochat/gpt.py", "forward", "logits = self.lm_head(x)", test::modern(n), r);
      if (r % 2 == 1) {  // a wrapped message, every line with its prefix
        const std::string p = "\n[rank" + std::to_string(r) + "]: ";
        for (std::size_t at = block.find(". GPU"); at != std::string::npos; at = std::string::npos) block.replace(at, 2, "." + p);
        const std::size_t of = block.find(" Of the allocated");
        block.replace(of, 1, p);
      }
      for (std::string_view line : split(block, '\n')) {
        if (!line.empty()) lines.emplace_back(line);
      }
      blocks.push_back(lines);
    }
    const auto joined = [&](bool mixed) {
      std::string out = test::head({}) + test::validated();
      std::vector<std::size_t> at(blocks.size());
      for (;;) {
        std::vector<std::size_t> open;
        for (std::size_t b = 0; b < blocks.size(); ++b) {
          if (at[b] < blocks[b].size()) open.push_back(b);
        }
        if (open.empty()) return out;
        const std::size_t b = mixed ? open[*rc::gen::inRange<std::size_t>(0, open.size())] : open[0];
        out += blocks[b][at[b]++] + "\n";
      }
    };
    const auto sorted = [](std::string text) {
      std::vector<std::string> lines;
      for (std::string_view l : split(text, '\n')) lines.emplace_back(l);
      std::ranges::sort(lines);
      return lines;
    };
    RC_ASSERT(sorted(summary(facts_of(joined(true)))) == sorted(summary(facts_of(joined(false)))));
  }));
}

TEST(Log, StaysSmall) {
  LogScanner scanner;
  for (int i = 0; i < 20000; ++i) {
    test::Numbers n;
    n.tried = std::to_string(i + 30) + ".00 MiB";
    scanner.feed("[rank" + std::to_string(i % 5000) + "]:   File \"/x/a.py\", line " + std::to_string(i) + ", in f" + std::to_string(i) + "\n[rank" + std::to_string(i % 5000) + "]: " + test::modern(n) + "\nVocab size: 32,768\n" + test::step(i, 30000) + "mem: " + std::to_string(20 + i % 50) + ".0GB\n");
  }
  const LogFacts f = scanner.finish();
  EXPECT_LE(f.events.size(), LogScanner::kMostEvents);
  EXPECT_LE(f.runs.size(), LogScanner::kMostRuns);
  EXPECT_EQ(f.events_beyond + static_cast<std::int64_t>(f.events.size()), 20000);
}

TEST(Series, ThinsEvenly) {
  Series s;
  for (int i = 0; i < 100000; ++i) s.add(i, i);
  EXPECT_LE(s.points().size(), Series::kMost);
  EXPECT_GT(s.points().size(), Series::kMost / 4);
  EXPECT_NEAR(*s.median(), 50000, 1000);
  EXPECT_EQ(s.largest(), 99999);
  EXPECT_EQ(s.count(), 100000);
}

TEST(Log, AnyBytesAreSafe) {
  EXPECT_TRUE(rc::check([](const std::string& bytes, std::size_t piece) { facts_of(bytes, piece % 64 + 1); }));
  EXPECT_TRUE(rc::check([] {
    const auto parts = *rc::gen::container<std::vector<std::string>>(rc::gen::element<std::string>("Traceback (most recent call last):", "  File \"a.py\", line 1, in f", "CUDA out of memory. Tried to allocate ", "2.00 GiB", "\n", "\r", "[rank1]: ", "step 1 | loss ", "mem: ", "torchrun x.py train \\", "\x1b[", "GPU 0",
                                                                                                      "Currently allocated :", "Vocab size: 1", "\"n_layer\": 3"));
    std::string text;
    for (const std::string& p : parts) text += p;
    RC_ASSERT(summary(facts_of(text, 5)) == summary(facts_of(text)));
  }));
}

}  // namespace
}  // namespace dryfit
