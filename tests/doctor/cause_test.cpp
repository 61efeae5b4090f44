// The right cause for each kind of failure: a table of our own, and the shared samples of real texts by count where they are at hand.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/text.hpp"
#include "doctor/diagnosis.hpp"
#include "logs.hpp"
#include "messages.hpp"

namespace dryfit {
namespace {

using test::Numbers;

Result<Diagnosis> diagnosed(std::string_view text, const Given& given = {}) {
  LogScanner scanner;
  scanner.feed(text);
  return diagnose(scanner.finish(), given);
}

CauseFinding cause_of(std::string_view text) {
  const auto d = diagnosed(text);
  EXPECT_TRUE(d && d->failure) << text;
  return d && d->failure ? d->failure->cause : CauseFinding{};
}

Numbers numbers(std::string tried, std::string total, std::string free, std::string allocated, std::string idle, std::string process = "", std::vector<std::pair<int, std::string>> others = {}, std::string allowed = "") {
  Numbers n{std::move(tried), std::move(total), std::move(free), std::move(allocated), std::move(idle), "", std::move(process), std::move(others), std::move(allowed), "", 0};
  const auto a = read_amount(n.allocated), i = read_amount(n.idle);
  char reserved[64];
  std::snprintf(reserved, sizeof reserved, "%.2f GiB", (a ? a->bytes : Bytes(0)).gib() + (i ? i->bytes : Bytes(0)).gib());
  n.reserved = reserved;
  return n;
}

// Steps of a training loop, with a memory reading each that grows by `growth` GiB a step.
std::string steps(int n, double memory, double growth) {
  std::string out;
  for (int i = 1; i <= n; ++i) {
    char line[160];
    std::snprintf(line, sizeof line, "step %d/5000 | loss 2.%03d | mem: %.2fGB\n", i, i, memory + growth * i);
    out += line;
  }
  return out;
}

const char* kOptimizer = "/venv/torch/optim/adamw.py";

struct Case { const char* what; std::string text; Cause cause; };

std::vector<Case> table() {
  const Numbers full = numbers("512.00 MiB", "23.64 GiB", "120.00 MiB", "22.80 GiB", "90.00 MiB", "23.45 GiB");
  return {
      // too big, in every wording of the allocators
      {"T0 full card", test::t0(numbers("300.00 MiB", "7.79 GiB", "52.00 MiB", "6.60 GiB", "40.00 MiB")), Cause::too_big},
      {"T1 full card", test::t1(numbers("1.20 GiB", "15.78 GiB", "0.60 GiB", "14.30 GiB", "0.10 GiB")), Cause::too_big},
      {"T2 full card", test::t2(numbers("220.00 MiB", "11.17 GiB", "31.00 MiB", "10.40 GiB", "0.12 GiB")), Cause::too_big},
      {"T3 full card", test::modern(full, "torch.cuda.OutOfMemoryError", "CUDA", "capacty"), Cause::too_big},
      {"T4 full card", test::modern(full, "torch.cuda.OutOfMemoryError"), Cause::too_big},
      {"T5 full card", test::modern(full), Cause::too_big},
      {"T6 full card", test::modern(full, "torch.OutOfMemoryError", "CUDA", "capacity", " If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True"), Cause::too_big},
      {"20 MiB on a full card", test::modern(numbers("20.00 MiB", "39.39 GiB", "9.00 MiB", "38.60 GiB", "110.00 MiB", "39.37 GiB")), Cause::too_big},
      {"one giant tensor", test::modern(numbers("31.00 GiB", "23.64 GiB", "22.00 GiB", "1.10 GiB", "0.05 GiB")), Cause::too_big},
      {"half the card at once", test::modern(numbers("12.00 GiB", "23.64 GiB", "9.10 GiB", "13.90 GiB", "0.15 GiB", "14.50 GiB")), Cause::too_big},
      {"HIP full card", test::modern(numbers("768.00 MiB", "23.98 GiB", "88.00 MiB", "23.10 GiB", "140.00 MiB"), "torch.OutOfMemoryError", "HIP"), Cause::too_big},
      {"XPU full card", test::modern(numbers("768.00 MiB", "15.59 GiB", "88.00 MiB", "15.10 GiB", "40.00 MiB"), "torch.OutOfMemoryError", "XPU", "capacity", " Please use `empty_cache`"), Cause::too_big},
      {"cudaMallocAsync", test::async(numbers("640.00 MiB", "23.64 GiB", "12.00 MiB", "22.90 GiB", "0 bytes")), Cause::too_big},
      {"MPS", "RuntimeError: MPS backend out of memory (MPS allocated: 17.25 GiB, other allocations: 512.00 MiB, max allowed: 18.00 GiB). Tried to allocate 600.00 MiB on private pool.", Cause::too_big},
      {"MPS, one buffer", "RuntimeError: Invalid buffer size: 48.00 GiB", Cause::too_big},
      {"JAX", "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 7516192768 bytes.\nBufferAssignment OOM Debugging.\n             total allocation:   31.20GiB\n", Cause::too_big},
      {"TPU", "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.30G of 15.75G hbm. Exceeded hbm capacity by 5.55G.", Cause::too_big},
      {"TensorFlow", "ResourceExhaustedError: OOM when allocating tensor with shape[64,512,4096] and type float on /job:localhost", Cause::too_big},
      {"TensorFlow, a graph", "tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution error:\nfailed to allocate memory\n\t [[{{node dense/MatMul}}]]", Cause::too_big},
      {"2 MiB on a full card, some idle", test::t1(numbers("2.00 MiB", "10.92 GiB", "3.00 MiB", "9.90 GiB", "0.30 GiB")), Cause::too_big},
      {"20 MiB on a full card, some idle", test::modern(numbers("20.00 MiB", "23.64 GiB", "9.00 MiB", "21.90 GiB", "1.10 GiB", "23.60 GiB")), Cause::too_big},
      {"forward of the first step", test::step(0, 0).substr(0, 0) + "Epoch 1\n" + test::traceback("/u/model.py", "forward", "x = self.ffn(x)", test::modern(full)), Cause::too_big},
      // fragmentation
      {"T1 in pieces", test::t1(numbers("1.50 GiB", "15.78 GiB", "0.30 GiB", "9.20 GiB", "5.10 GiB")), Cause::fragmentation},
      {"T5 in pieces", test::modern(numbers("2.10 GiB", "79.15 GiB", "0.40 GiB", "66.00 GiB", "12.10 GiB", "78.70 GiB")), Cause::fragmentation},
      {"HIP in pieces", test::modern(numbers("1.00 GiB", "63.98 GiB", "0.20 GiB", "50.00 GiB", "13.00 GiB"), "torch.OutOfMemoryError", "HIP"), Cause::fragmentation},
      // somebody else
      {"a named process", test::modern(numbers("900.00 MiB", "23.64 GiB", "300.00 MiB", "11.20 GiB", "0.20 GiB", "11.80 GiB", {{8123, "11.40 GiB"}})), Cause::other_process},
      {"in a container", test::modern(numbers("900.00 MiB", "79.15 GiB", "300.00 MiB", "41.20 GiB", "0.20 GiB", "", {{8123, "36.40 GiB"}, {8200, "42.00 GiB"}})), Cause::other_process},
      {"nobody named", test::t2(numbers("900.00 MiB", "23.64 GiB", "300.00 MiB", "9.20 GiB", "0.20 GiB")), Cause::other_process},
      {"no memory to begin with", test::traceback("/venv/torch/cuda/__init__.py", "_lazy_init", "torch._C._cuda_init()", "RuntimeError: CUDA error: out of memory"), Cause::other_process},
      // growth
      {"a leak in the readings", steps(60, 10, 0.2) + test::modern(full), Cause::leak},
      {"after many level steps", steps(400, 21, 0) + test::modern(full), Cause::leak},
      // the optimizer's state
      {"first optimizer step", test::traceback(kOptimizer, "_init_group", "state[\"exp_avg\"] = torch.zeros_like(p)", test::modern(full)), Cause::optimizer_state},
      {"second step of nanochat", test::head({}) + test::validated() + test::step(0, 900) + test::modern(numbers("300.00 MiB", "139.72 GiB", "0.10 GiB", "138.60 GiB", "0.30 GiB", "139.60 GiB")), Cause::optimizer_state},
      {"second step of a bar", "  0%|  | 1/500 [00:02<10:00, 1.2s/it]\r" + test::modern(full), Cause::optimizer_state},
      // evaluation
      {"evaluation", steps(250, 20, 0) + test::traceback("/u/train.py", "evaluate", "out = model(batch)", test::modern(full)), Cause::evaluation},
      {"CORE", test::head({}) + test::validated() + test::step(0, 900) + test::step(1, 900) + test::step(2, 900) + test::traceback("/home/u/nanochat/core_eval.py", "forward_model", "outputs = model(input_ids)", test::modern(full)), Cause::evaluation},
      {"sampling", steps(30, 20, 0) + test::traceback("/venv/transformers/generation/utils.py", "generate", "result = self._sample(", test::modern(full)), Cause::evaluation},
      // the host
      {"OOM killer", "[1.2] oom-kill:constraint=CONSTRAINT_NONE\n[1.2] Out of memory: Killed process 977 (python) total-vm:99kB, anon-rss:64000000kB", Cause::host_memory},
      {"torchrun, -9", "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n  exitcode  : -9 (pid: 977)\n", Cause::host_memory},
      {"DeepSpeed, -9", "[2026-01-02 03:04:05,678] [ERROR] [launch.py:325:sigkill_handler] ['/usr/bin/python', '-u', 'run.py'] exits with return code = -9", Cause::host_memory},
      {"accelerate, SIGKILL", "subprocess.CalledProcessError: Command '['/usr/bin/python', 'run.py']' died with <Signals.SIGKILL: 9>.", Cause::host_memory},
      {"slurm", "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0. Some of the step tasks have been OOM Killed.", Cause::host_memory},
      {"bash", "train.sh: line 3: 977 Killed                  python train.py", Cause::host_memory},
      {"CPU allocator", "RuntimeError: [enforce fail at alloc_cpu.cpp:9] DefaultCPUAllocator: not enough memory: you tried to allocate 34359738368 bytes.", Cause::host_memory},
      {"shm", "RuntimeError: DataLoader worker (pid 9) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory.", Cause::host_memory},
      {"pinned", "THCudaCheck FAIL file=/w/THCCachingHostAllocator.cpp line=9 error=2 : out of memory", Cause::host_memory},
      {"numpy", "numpy.core._exceptions.MemoryError: Unable to allocate 9.00 GiB for an array", Cause::host_memory},
      // limits
      {"a fraction", test::modern(numbers("128.00 MiB", "79.15 GiB", "60.00 GiB", "15.60 GiB", "0.15 GiB", "16.30 GiB", {}, "15.80 GiB")), Cause::limit},
      {"a fraction, T1", test::t1(numbers("128.00 MiB", "23.64 GiB", "15.00 GiB", "7.90 GiB", "0.05 GiB", "", {}, "8.00 GiB")), Cause::limit},
      {"the driver refuses", test::modern(numbers("64.00 MiB", "12.00 GiB", "6.10 GiB", "4.70 GiB", "0.05 GiB"), "torch.cuda.OutOfMemoryError"), Cause::limit},
      {"an integrated GPU", test::modern(numbers("600.00 MiB", "31.20 GiB", "14.00 GiB", "15.10 GiB", "0.30 GiB"), "torch.OutOfMemoryError", "HIP"), Cause::limit},
      {"XPU over 4 GiB", test::modern(numbers("5.00 GiB", "15.59 GiB", "14.00 GiB", "0.80 GiB", "0.02 GiB"), "torch.OutOfMemoryError", "XPU"), Cause::limit},
      // Windows
      {"spill", test::modern(numbers("256.00 MiB", "12.00 GiB", "0 bytes", "19.30 GiB", "0.20 GiB"), "torch.cuda.OutOfMemoryError"), Cause::windows_spill},
      {"spill, T2", test::t2(numbers("2.00 GiB", "8.00 GiB", "0 bytes", "13.10 GiB", "1.20 GiB")), Cause::windows_spill},
      // libraries
      {"cuBLAS", "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", Cause::outside_pool},
      {"cuDNN", "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED", Cause::outside_pool},
      {"NCCL", "n1:1:2 [0] NCCL WARN Cuda failure 'out of memory'\nn1:1:2 [0] NCCL WARN Failed to CUDA calloc 67108864 bytes", Cause::outside_pool},
      {"RAPIDS", "MemoryError: std::bad_alloc: out_of_memory: CUDA error at: /w/rmm/mr/device/cuda_memory_resource.hpp", Cause::outside_pool},
      {"raw error in a step", "step 1 | loss 2\n" + test::traceback("/u/model.py", "forward", "x = self.ffn(x)", "torch.AcceleratorError: CUDA error: out of memory"), Cause::outside_pool},
      {"many communicators", test::modern(numbers("4.00 GiB", "139.72 GiB", "1.10 GiB", "112.00 GiB", "1.90 GiB", "138.50 GiB")), Cause::outside_pool},
      // neither memory of the card nor of the host
      {"Triton", "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 131072, Hardware limit: 101376. Reducing block sizes", Cause::kernel_limit},
      {"1EB", "RuntimeError: CUDA out of memory. Tried to allocate more than 1EB memory.", Cause::size_bug},
      {"only a warning", "[W CUDACachingAllocator.cpp:9] memory allocation failed with OOM on device 0 while trying to allocate 1073741824 bytes (free: 5242880, total: 25383469056).\n" + steps(5, 20, 0), Cause::none},
  };
}

TEST(Cause, OfOurOwnTable) {
  int right = 0, all = 0;
  for (const Case& c : table()) {
    const CauseFinding found = cause_of(c.text);
    EXPECT_EQ(name_of(found.cause), name_of(c.cause)) << c.what << ": " << found.summary;
    EXPECT_FALSE(found.summary.empty()) << c.what;
    right += found.cause == c.cause;
    ++all;
  }
  std::printf("own table: %d of %d causes right\n", right, all);
}

TEST(Cause, EveryFailureHasAFix) {
  for (const Case& c : table()) {
    const auto d = diagnosed(c.text);
    ASSERT_TRUE(d && d->failure) << c.what;
    EXPECT_FALSE(d->failure->fixes.empty()) << c.what;
    for (const Fix& f : d->failure->fixes) EXPECT_FALSE(f.change.empty() || f.note.empty()) << c.what << ": " << f.change;
  }
}

// What somebody who read each text (and its issue, where it has one) would say; two where both hold.
const std::vector<std::vector<Cause>>& labels() {
  using enum Cause;
  static const std::vector<std::vector<Cause>> kLabels = {
      {limit}, {too_big}, {too_big}, {too_big}, {fragmentation}, {too_big}, {fragmentation, other_process}, {windows_spill}, {too_big}, {too_big}, {fragmentation}, {fragmentation}, {windows_spill}, {limit}, {too_big}, {limit},
      {fragmentation}, {too_big}, {windows_spill}, {too_big}, {windows_spill}, {too_big}, {too_big}, {too_big}, {other_process, outside_pool}, {limit}, {limit}, {too_big}, {limit}, {limit}, {too_big}, {too_big},
      {too_big}, {too_big}, {outside_pool}, {outside_pool}, {outside_pool}, {outside_pool}, {outside_pool, other_process}, {outside_pool}, {outside_pool}, {outside_pool}, {too_big}, {too_big}, {too_big}, {too_big, other_process}, {kernel_limit}, {kernel_limit}};
  return kLabels;
}

TEST(Cause, OfRealTexts) {
  const std::filesystem::path path = std::filesystem::path(DRYFIT_SOURCE_DIR) / "../shared/data/oom_samples.jsonl";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no shared samples beside the checkout";
  std::ifstream file(path);
  std::size_t n = 0, right = 0;
  for (std::string line; std::getline(file, line) && n < labels().size(); ++n) {
    const std::string text = nlohmann::json::parse(line)["text"];
    LogScanner scanner;
    scanner.feed(text);
    const LogFacts facts = scanner.finish();
    ASSERT_EQ(facts.events.size(), 1u) << n << ": " << text;
    const Cause found = cause_of(text).cause;
    const bool good = std::ranges::find(labels()[n], found) != labels()[n].end();
    right += good;
    if (!good) std::printf("sample %zu: %s, expected %s\n", n, std::string(name_of(found)).c_str(), std::string(name_of(labels()[n][0])).c_str());
  }
  EXPECT_EQ(n, labels().size());
  std::printf("real texts: %zu parsed, %zu causes right\n", n, right);
  EXPECT_GE(right * 10, n * 9);
}

TEST(Cause, HoldersAddUpToTheCard) {
  EXPECT_TRUE(rc::check([] {
    const auto part = [] { return *rc::gen::inRange(0, 2000) / 100.0; };
    const double allocated = part(), idle = part(), outside = part(), other = part(), free = part();
    const auto gib_text = [](double x) {
      char text[32];
      std::snprintf(text, sizeof text, "%.2f GiB", x);
      return std::string(text);
    };
    const std::string total = gib_text(allocated + idle + outside + other + free + 0.25);
    const Oom oom = parse_oom(Wording::allocator, test::modern(numbers("0.50 GiB", total, gib_text(free), gib_text(allocated), gib_text(idle), gib_text(allocated + idle + outside), {{7, gib_text(other)}})));
    double sum = 0;
    for (const Holder& h : holders_of(oom)) sum += h.bytes->gib();
    RC_ASSERT(std::abs(sum - oom.total->bytes.gib()) < 0.06);
  }));
}

TEST(Cause, GrowthIsTold) {
  const auto series = [](auto f) {
    MemorySeries s;
    for (int i = 0; i < 60; ++i) s.used.add(i, f(i));
    return growth_of(s);
  };
  EXPECT_TRUE(series([](int i) { return 1e10 + 1e8 * i; }));
  EXPECT_TRUE(series([](int i) { return 1e10 + 1e8 * i + (i % 2) * 3e9; }));  // peaks within steps do not hide it
  EXPECT_FALSE(series([](int) { return 1e10; }));
  EXPECT_FALSE(series([](int i) { return i < 3 ? 5e9 : 1e10; }));             // the first steps
  EXPECT_FALSE(series([](int i) { return 1e10 + (i % 7) * 1e9; }));
  EXPECT_FALSE(series([](int i) { return 2e10 - 1e8 * i; }));
}

}  // namespace
}  // namespace dryfit
