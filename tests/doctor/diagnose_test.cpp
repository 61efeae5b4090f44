// A whole diagnosis: the run that a log tells of is laid out exactly, the failed request gets its tensor, fixes hold what they promise.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cstdio>

#include "doctor/diagnosis.hpp"
#include "doctor/words.hpp"
#include "logs.hpp"
#include "messages.hpp"
#include "plan/launch.hpp"
#include "plan/plan.hpp"
#include "plan/trainer_command.hpp"
#include "report/doctor.hpp"
#include "workload/probe_presets.hpp"

namespace dryfit {
namespace {

Result<Diagnosis> diagnosed(std::string_view text, const Given& given = {}, std::size_t piece = 1 << 20) {
  LogScanner scanner;
  for (std::size_t at = 0; at < text.size(); at += piece) scanner.feed(text.substr(at, piece));
  return diagnose(scanner.finish(), given);
}

Workload workload_of(std::int64_t depth, std::int64_t batch, std::int64_t gpus) {
  WorkloadFlags f;
  f.depth = depth;
  f.device_batch_size = batch;
  f.gpus = gpus;
  return *make_nanochat_workload(f);
}

Machine h100(std::int64_t gpus) { return *machine_from_flags({"h100", gpus, std::nullopt, std::nullopt}); }

// The message that PyTorch would print where the predicted run dies on a card of this capacity.
test::Numbers predicted_message(const Workload& w, const Machine& machine, Bytes capacity, TensorMatch* where = nullptr) {
  const auto report = estimate(w, machine);
  const Program program = program_for(w, target_of(machine), w.run.grad_accum_steps > 1).value();
  const auto dies = predicted_failure(program, report->allocator, capacity - report->context);
  EXPECT_TRUE(dies);
  if (where != nullptr) *where = *dies;
  const CachingAllocator rounding(report->allocator, std::nullopt);
  test::Numbers n;
  n.tried = exact_text(rounding.alloc_size(rounding.round_size(Bytes(dies->tensor.bytes))));
  n.total = exact_text(capacity);
  n.allocated = exact_text(dies->before);
  n.free = "0.20 GiB";
  n.idle = exact_text(capacity - dies->before - mib(205) - report->context);
  n.process = exact_text(capacity - mib(205));
  return n;
}

TEST(Diagnose, ThePrintedConfigurationIsTheWorkload) {
  const auto d = diagnosed(test::head({}) + test::validated() + test::traceback("/x/nanochat/gpt.py", "forward", "x = self.mlp(norm(x))", test::modern({})));
  ASSERT_TRUE(d && d->known.workload && d->known.machine);
  const Workload& w = *d->known.workload;
  const Workload expected = workload_of(26, 32, 8);
  EXPECT_EQ(w.model.param_count(), 1681786938);
  EXPECT_EQ(w.model.version.epoch, "E7");
  EXPECT_EQ(w.run.world_size, 8);
  EXPECT_EQ(w.run.grad_accum_steps, 2);
  EXPECT_EQ(launch_command(w), launch_command(expected));
  EXPECT_EQ(d->known.machine->gpu.name, "NVIDIA H100 80GB HBM3");
}

TEST(Diagnose, ThePrintedAttentionIsUsed) {
  const std::string sdpa = "WARNING: Flash Attention 3 not available, using PyTorch SDPA fallback\n", fa3 = "Using Flash Attention 3: efficient\n";
  const auto attention = [](const std::string& log) { return diagnosed(log + test::modern({}))->known.workload->run.attention; };
  EXPECT_EQ(attention(test::head({})), Attention::automatic);
  EXPECT_EQ(attention(test::head({}) + sdpa), Attention::flash);
  EXPECT_EQ(attention(test::head({}) + fa3), Attention::fa3);
}

TEST(Diagnose, ParametersTellTheVersion) {
  struct Row { const char* epoch; std::int64_t depth; };
  for (const Row& r : {Row{"E4g", 24}, Row{"E5", 24}, Row{"E6b", 20}}) {
    WorkloadFlags f;
    f.nanochat = r.epoch;
    f.depth = r.depth;
    f.device_batch_size = 16;
    const Workload w = *make_nanochat_workload(f);
    test::NanochatLog l;
    l.depth = static_cast<int>(r.depth), l.width = static_cast<int>(w.model.width), l.heads = static_cast<int>(w.model.heads), l.batch = 16, l.ranks = 1, l.total = w.run.total_batch_size;
    l.parameters = test::commas(w.model.param_count());
    const auto d = diagnosed(test::head(l) + test::modern({}));
    ASSERT_TRUE(d && d->known.workload);
    EXPECT_EQ(d->known.workload->model.param_count(), w.model.param_count()) << r.epoch;
    EXPECT_LE(w.model.version.date, d->known.workload->model.version.date) << r.epoch;
  }
  // the first release prints other lines, and counts no value embeddings
  const auto d = diagnosed("Vocab size: 65,536\nnum_layers: 20\nmodel_dim: 1280\nnum_heads: 10\nnum_kv_heads: 10\nTokens / micro-batch / rank: 32 x 2048 = 65,536\nTokens / micro-batch: 524,288\nTotal batch size 524,288 => gradient accumulation steps: 1\nNumber of parameters: 560,988,160\n" + test::modern({}));
  ASSERT_TRUE(d && d->known.workload);
  EXPECT_EQ(d->known.workload->model.param_count(), 560988160);
  EXPECT_TRUE(d->known.workload->model.version.autocast);
}

TEST(Diagnose, TheCommandIsEnough) {
  const auto d = diagnosed("+ torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- --depth=26 --device-batch-size=32 --run=mine\n" + test::modern({}), {{}, {"h100", std::nullopt, std::nullopt, std::nullopt}, std::nullopt});
  ASSERT_TRUE(d && d->known.workload && d->prediction);
  EXPECT_EQ(d->known.workload->run.world_size, 8);
  EXPECT_NE(d->failure->fixes.at(0).command.find("--run=mine"), std::string::npos);
}

TEST(Diagnose, FlagsGoBeforeTheLog) {
  Given given;
  given.flags.depth = 12;
  given.flags.device_batch_size = 4;
  given.flags.gpus = 1;
  given.flags.total_batch_size = 524288;
  const auto d = diagnosed(test::head({}) + test::modern({}), given);
  ASSERT_TRUE(d && d->known.workload);
  EXPECT_EQ(d->known.workload->model.depth, 12);
  EXPECT_EQ(d->known.workload->run.device_batch_size, 4);
  given.flags.device_batch_size = 3;
  const auto bad = diagnosed(test::head({}) + test::modern({}), given);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, "illegal_batch");
}

// For any run that does not fit, the message of its predicted death names its tensor and the moment.
TEST(Diagnose, TheRequestGetsItsTensor) {
  for (const auto& [depth, batch, gpus] : {std::tuple{26, 32, 8}, std::tuple{20, 64, 1}, std::tuple{12, 128, 1}}) {
    const Workload w = workload_of(depth, batch, gpus);
    const Machine machine = h100(gpus);
    TensorMatch dies;
    const test::Numbers n = predicted_message(w, machine, Bytes(85028700000), &dies);
    Given given;
    given.flags.depth = depth;
    given.flags.device_batch_size = batch;
    given.flags.gpus = gpus;
    given.machine.gpu = "h100";
    const auto d = diagnosed(test::modern(n), given);
    ASSERT_TRUE(d && d->failure && !d->failure->matches.empty()) << depth;
    const TensorMatch& m = d->failure->matches.front();
    EXPECT_EQ(m.tensor.shape, dies.tensor.shape) << depth << " " << m.tensor.name() << " " << dies.tensor.name();
    EXPECT_EQ(m.tensor.dtype, dies.tensor.dtype);
    EXPECT_EQ(m.phase, dies.phase);
    EXPECT_EQ(m.part, dies.part);
    EXPECT_LT(std::llabs(d->prediction->unaccounted->count), 1 << 28) << depth;
    EXPECT_EQ(name_of(d->failure->cause.cause), "too_big");
    EXPECT_EQ(d->failure->cause.confidence, Confidence::certain);
    EXPECT_EQ(d->failure->phase_source, "prediction");
  }
}

// The same of a Hugging Face model; and what a fix promises is what check would say of its command.
TEST(Diagnose, ARequestOfAModelGetsItsTensor) {
  const auto run_of = [](const std::vector<std::string>& words) {
    const auto pasted = read_trainer_command(*parse_launch(words)).value();
    return make_transformers_workload(find_preset(*pasted.flags.model)->preset->model, pasted.flags).value();
  };
  const std::vector<std::string> words = *shell_split("python run_clm.py --model_name_or_path gpt2 --per_device_train_batch_size 20 --block_size 1024 --bf16 --output_dir out");
  Given given;
  given.model = run_of(words);
  given.model_source = "the command given";
  given.machine.gpu = "4090";
  const Machine machine = machine_from_flags(given.machine).value();
  TensorMatch dies;
  const test::Numbers n = predicted_message(*given.model, machine, Bytes(25254400000), &dies);
  const auto d = diagnosed(test::modern(n), given);
  ASSERT_TRUE(d && d->failure && !d->failure->matches.empty());
  const TensorMatch& m = d->failure->matches.front();
  EXPECT_EQ(m.tensor.name(), dies.tensor.name());
  EXPECT_EQ(m.part, dies.part);
  EXPECT_LT(std::llabs(d->prediction->unaccounted->count), 1 << 25);
  EXPECT_EQ(name_of(d->failure->cause.cause), "too_big");
  EXPECT_EQ(d->known.sources, (std::vector<std::string>{"the command given"}));
  int checked = 0;
  for (const Fix& f : d->failure->fixes) {
    if (!f.process || f.needs_code_change || f.command.starts_with("PYTORCH")) continue;
    const auto report = estimate(run_of(*shell_split(f.command)), *d->known.machine);
    ASSERT_TRUE(report) << f.command;
    EXPECT_EQ(report->process.bytes.count, f.process->count) << f.change;
    EXPECT_EQ(report->verdict, *f.verdict) << f.change;
    ++checked;
  }
  EXPECT_GE(checked, 3);
  for (const Fix& f : d->failure->ladder) EXPECT_EQ(f.change.find("depth"), std::string::npos);
}

TEST(Diagnose, SmallRequestsNameNoTensor) {
  const Program program = build_program(workload_of(12, 32, 1), {}, true);
  for (const char* size : {"2.00 MiB", "20.00 MiB"}) EXPECT_TRUE(match_request(program, {*read_amount(size), {}, Part::unknown, Phase::unknown, {}, false}).empty()) << size;
  const auto logits = match_request(program, {*read_amount("4.00 GiB"), {}, Part::unknown, Phase::unknown, {}, false});
  ASSERT_FALSE(logits.empty());
  EXPECT_EQ(logits[0].tensor.bytes, 32LL * 2048 * 32768 * 2);
  EXPECT_TRUE(match_request(program, {*read_amount("4.17 GiB"), {}, Part::unknown, Phase::unknown, {}, false}).empty());
}

// How many fixes have a figure; each is what check says of its command, and no command forgets what was said of the run.
int promises_kept(const Diagnosis& d, const std::vector<std::string>& kept) {
  int checked = 0;
  std::vector<Fix> all = d.failure->fixes;
  all.insert(all.end(), d.failure->ladder.begin(), d.failure->ladder.end());
  for (const Fix& f : all) {
    if (!f.process || f.needs_code_change) continue;
    EXPECT_FALSE(f.command.empty()) << f.change;
    const auto words = shell_split(f.command);
    for (const std::string& flag : kept) EXPECT_TRUE(std::ranges::find(*words, flag) != words->end()) << flag << " is not in " << f.command;
    const auto pasted = parse_pasted_command(*words);
    EXPECT_TRUE(pasted) << f.command;
    const auto w = make_nanochat_workload(pasted->flags);
    EXPECT_TRUE(w) << f.command;
    const auto report = estimate(*w, *d.known.machine);
    EXPECT_EQ(report->process.bytes.count, f.process->count) << f.change;
    EXPECT_EQ(report->verdict, *f.verdict) << f.change;
    EXPECT_EQ((d.prediction->process - report->process.bytes).count, f.saving->count) << f.change;
    ++checked;
  }
  return checked;
}

// What a fix promises is what check would say of its command.
TEST(Diagnose, FixesKeepTheirPromise) {
  const auto failure = [](std::int64_t depth, std::int64_t batch) {
    return test::traceback("/x/nanochat/gpt.py", "forward", "x = self.mlp(norm(x))", test::modern(predicted_message(workload_of(depth, batch, 8), h100(8), Bytes(85028700000)), "torch.OutOfMemoryError"), 0);
  };
  // a run on several GPUs that ends before its steps wander: what shorter rows take hangs on how many steps there are
  test::NanochatLog brief{28, 14, 1792, 16, 8, 1048576, "2,018,511,234", "NVIDIA H100 80GB HBM3", ""};
  brief.command = "CUBLAS_WORKSPACE_CONFIG=:4096:2:16:8 torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- --depth=28 --device-batch-size=16 --total-batch-size=1048576 --num-iterations=4 --run=brief";
  const auto of_brief = diagnosed(test::head(brief) + test::validated() + failure(28, 16));
  ASSERT_TRUE(of_brief && of_brief->failure && of_brief->prediction);
  EXPECT_GE(promises_kept(*of_brief, {"CUBLAS_WORKSPACE_CONFIG=:4096:2:16:8", "--num-iterations=4", "--run=brief"}), 6);
  EXPECT_TRUE(std::ranges::any_of(of_brief->failure->fixes, [](const Fix& f) { return f.change == "--max-seq-len 1024"; }));

  const auto d = diagnosed(test::head({}) + test::validated() + failure(26, 32));
  ASSERT_TRUE(d && d->failure && d->prediction);
  EXPECT_GE(promises_kept(*d, {}), 6);
  EXPECT_EQ(d->failure->fixes[0].change, "--device-batch-size 16");
  EXPECT_EQ(d->failure->fixes[0].verdict, Verdict::fits);
  EXPECT_EQ(d->failure->fixes[0].identical_training, true);
  // the seed's ladder, in its order
  std::vector<std::string> rungs;
  for (const Fix& f : d->failure->ladder) rungs.push_back(f.change);
  EXPECT_EQ(rungs, (std::vector<std::string>{"--device-batch-size 16", "--device-batch-size 8", "--device-batch-size 4", "--device-batch-size 2", "--device-batch-size 1", "--max-seq-len 1024", "--max-seq-len 512", "--depth 12", "check for leaks"}));
}

TEST(Diagnose, TracebacksTellTheMoment) {
  struct Row { const char* file; const char* function; const char* code; Phase phase; Part part; };
  for (const Row& r : {Row{"/x/torch/_tensor.py", "backward", "torch.autograd.backward(", Phase::first_step, Part::backward}, Row{"/x/nanochat/optim.py", "step", "self._step_muon(group)", Phase::first_step, Part::optimizer}, Row{"/x/torch/nn/functional.py", "cross_entropy", "return torch._C._nn.cross_entropy_loss(", Phase::first_step, Part::loss},
                       Row{"/x/nanochat/loss_eval.py", "evaluate_bpb", "loss2d = model(x, y, loss_reduction='none')", Phase::evaluation, Part::unknown}, Row{"/x/nanochat/core_eval.py", "forward_model", "outputs = model(input_ids)", Phase::evaluation, Part::unknown}, Row{"/x/nanochat/engine.py", "generate", "logits = self.model.forward(ids)", Phase::sampling, Part::unknown},
                       Row{"/x/nanochat/checkpoint_manager.py", "save_checkpoint", "torch.save(model_data, path)", Phase::checkpoint, Part::unknown}, Row{"/x/nanochat/checkpoint_manager.py", "load_checkpoint", "torch.load(path, map_location=device)", Phase::startup, Part::resume}, Row{"/x/torch/utils/checkpoint.py", "forward", "outputs = run_function(*args)", Phase::first_step, Part::forward}}) {
    const auto d = diagnosed(test::head({}) + test::validated() + test::traceback(r.file, r.function, r.code, test::modern({})));
    ASSERT_TRUE(d && d->failure);
    EXPECT_EQ(name_of(d->failure->phase), name_of(r.phase)) << r.file;
    EXPECT_EQ(name_of(d->failure->part), name_of(r.part)) << r.file;
    EXPECT_EQ(d->failure->phase_source, "traceback");
  }
  const auto asked = diagnosed(test::traceback("/tmp/torchinductor_u/ab/cab.py", "call", "buf7 = empty_strided_cuda((65536, 32768), (32768, 1), torch.bfloat16)", test::modern({})));
  ASSERT_TRUE(asked->failure->asked);
  EXPECT_EQ(asked->failure->asked->shape, "65536, 32768");
  EXPECT_EQ(asked->failure->asked->dtype, "bfloat16");
}

TEST(Diagnose, TheTellingMessageIsExplained) {
  // consequences come first and last; ranks in any order; a warning before
  const std::string text = "[W CUDACachingAllocator.cpp:9] memory allocation failed with OOM on device 1 while trying to allocate 1073741824 bytes (free: 5242880, total: 25383469056).\n"
                           "[rank1]: RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`\n[rank3]: " + test::modern({}) + "\n[rank2]: " + test::modern({}) + "\n  exitcode  : -9 (pid: 31)\n";
  const auto d = diagnosed(text);
  ASSERT_TRUE(d && d->failure);
  EXPECT_EQ(d->failure->event.rank, 2);
  EXPECT_GE(d->failure->others.size(), 3u);
}

TEST(Diagnose, TheLastRunThatFailedIsExplained) {
  test::NanochatLog big, small;
  small.batch = 16;
  const auto d = diagnosed(test::head(big) + test::modern({}) + "\n" + test::head(small) + test::validated() + test::step(0, 90) + test::step(1, 90));
  ASSERT_TRUE(d && d->failure);
  EXPECT_EQ(d->known.workload->run.device_batch_size, 32);
  EXPECT_TRUE(std::ranges::any_of(d->notes, [](const std::string& n) { return n.find("a later run") != std::string::npos; }));
}

TEST(Diagnose, SameWhereverCutAndHoweverMixed) {
  EXPECT_TRUE(rc::check([] {
    std::vector<std::string> blocks;
    for (int r = 0; r < 4; ++r) {
      test::Numbers n;
      n.device = r;
      blocks.push_back(test::traceback("/x/nanochat/gpt.py", "forward", "x = self.mlp(x)", test::modern(n), r));
    }
    const auto build = [&](const std::vector<std::size_t>& order) {
      std::string out = "[rank0]: hello\n";
      for (std::size_t i : order) out += blocks[i];
      return out;
    };
    const auto screen = [](const Result<Diagnosis>& d) {
      Diagnosis copy = *d;
      copy.failure->event.line = copy.failure->event.column = 0;
      for (FailureGroup& g : copy.failure->others) g.first_line = 0;
      return doctor_json(copy, "x");
    };
    const auto order = *rc::gen::map(rc::gen::arbitrary<std::uint32_t>(), [](std::uint32_t seed) {
      std::vector<std::size_t> o{0, 1, 2, 3};
      for (std::size_t i = 3; i > 0; --i) std::swap(o[i], o[(seed >>= 3) % (i + 1)]);
      return o;
    });
    const auto piece = *rc::gen::inRange<std::size_t>(1, 900);
    RC_ASSERT(screen(diagnosed(build(order), {}, piece)) == screen(diagnosed(build({0, 1, 2, 3}))));
  }));
}

TEST(Diagnose, NothingFoundAndNoText) {
  const auto nothing = diagnosed("hello\nworld\n");
  ASSERT_TRUE(nothing);
  EXPECT_EQ(nothing->finding, Diagnosis::Finding::nothing);
  EXPECT_EQ(nothing->lines, 2);
  const auto junk = diagnosed(std::string(4096, '\x01'));
  ASSERT_FALSE(junk);
  EXPECT_EQ(junk.error().code, "not_text");
  EXPECT_FALSE(junk.error().hint.empty());
}

TEST(Diagnose, GenericBatchFlagsAreHalved) {
  const auto d = diagnosed("$ python train.py --per_device_train_batch_size 8 --gradient_accumulation_steps=2 --lr 1e-4\n" + test::modern({}));
  ASSERT_TRUE(d && d->failure);
  EXPECT_EQ(d->failure->fixes[0].command, "python train.py --per_device_train_batch_size 4 --gradient_accumulation_steps=4 --lr 1e-4");
  EXPECT_EQ(d->failure->fixes[0].saving, std::nullopt);  // not derivable: not guessed
}

TEST(Diagnose, AnyTextHasAScreen) {
  EXPECT_TRUE(rc::check([](const std::string& text) {
    const auto d = diagnosed(text + " CUDA out of memory. Tried to allocate 2.00 GiB " + text);
    RC_ASSERT(d.has_value());
    RC_ASSERT(!doctor_text(*d, "x", {}).empty());
    RC_ASSERT(doctor_text(*d, "x", {}).find('\x1b') == std::string::npos);
    doctor_json(*d, "x");
  }));
}

}  // namespace
}  // namespace dryfit
