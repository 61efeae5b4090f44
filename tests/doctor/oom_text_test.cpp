// Every wording gives its numbers; code that only mentions a failure is none.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "base/text.hpp"
#include "doctor/oom_text.hpp"
#include "messages.hpp"

namespace dryfit {
namespace {

using test::Numbers;

Oom only(const std::string& text) {
  const auto starts = find_oom(text);
  EXPECT_EQ(starts.size(), 1u) << text;
  return starts.empty() ? Oom{} : parse_oom(starts[0].wording, std::string_view(text).substr(starts[0].at));
}
double gib_of(const std::optional<Amount>& a) { return a ? a->bytes.gib() : -1; }

TEST(Amounts, AsPrinted) {
  struct Row { const char* text; std::int64_t bytes, slack; };
  for (const Row& r : {Row{"1014.25 MiB", 1063518208, 5243}, Row{"0 bytes", 0, 0}, Row{"372.5MiB x", 390594560, 52429}, Row{"2.12G (1", 2276332667, 5368710}, Row{"8.89 GB", 9545564815, 5368710}, Row{"512 KiB", 524288, 512}, Row{"1,234 bytes", 1234, 0}, Row{"3 b", 3, 0}}) {
    const auto a = read_amount(r.text);
    ASSERT_TRUE(a) << r.text;
    EXPECT_EQ(a->bytes.count, r.bytes) << r.text;
    EXPECT_NEAR(static_cast<double>(a->slack.count), static_cast<double>(r.slack), 1) << r.text;
  }
  for (const char* none : {"", "GiB", "12", "12 parsecs", "-1 GiB", "nan GiB", "17179869184.00 GiB", "99999999999999999999999999 bytes", "1..5 GiB"}) EXPECT_FALSE(read_amount(none)) << none;
}

TEST(OomText, TheAllocatorOfEachAge) {
  const Numbers n{"2.00 GiB", "23.64 GiB", "0.75 GiB", "21.10 GiB", "0.40 GiB", "21.50 GiB", "", {}, "", "", 5};
  for (const auto& [text, torch] : {std::pair{test::t0(n), "1.3 or older"}, std::pair{test::t1(n), "1.4 to 1.9"}, std::pair{test::t2(n), "1.10 to 2.0"}, std::pair{test::modern(n, "torch.cuda.OutOfMemoryError", "CUDA", "capacty"), "2.1"},
                                    std::pair{test::modern(n, "torch.cuda.OutOfMemoryError"), "2.2 or newer"}, std::pair{test::modern(n, "torch.OutOfMemoryError", "CUDA", "capacity", " ... PYTORCH_ALLOC_CONF=expandable_segments:True"), "2.9 or newer"}}) {
    const Oom o = only(text);
    EXPECT_EQ(o.wording, Wording::allocator);
    EXPECT_EQ(o.backend, Backend::cuda);
    EXPECT_EQ(o.torch, torch) << text;
    EXPECT_EQ(o.device, 5);
    EXPECT_NEAR(gib_of(o.requested), 2.00, 1e-6);
    EXPECT_NEAR(gib_of(o.total), 23.64, 1e-6);
    EXPECT_NEAR(gib_of(o.free), 0.75, 1e-6);
    EXPECT_NEAR(gib_of(o.allocated), 21.10, 1e-6);
    EXPECT_NEAR(gib_of(o.idle), 0.40, 1e-6);
    EXPECT_NEAR(gib_of(o.reserved), 21.50, 1e-6);
  }
}

TEST(OomText, WhoElseIsThere) {
  Numbers n;
  n.process = "22.04 GiB";
  n.others = {{4711, "1.25 GiB"}, {99, "300.00 MiB"}};
  n.allowed = "21.60 GiB";
  n.pools = "17.00 MiB";
  const Oom o = only(test::modern(n));
  EXPECT_NEAR(gib_of(o.this_process), 22.04, 1e-6);
  ASSERT_EQ(o.processes.size(), 2u);
  EXPECT_EQ(o.processes[0].pid, 4711);
  EXPECT_NEAR(o.processes[1].memory.bytes.mib(), 300, 1e-6);
  EXPECT_NEAR(gib_of(o.allowed), 21.6, 1e-6);
  EXPECT_NEAR(o.private_pools->bytes.mib(), 17, 1e-6);
  EXPECT_EQ(o.torch, "2.4 or newer");
}

TEST(OomText, OtherBackends) {
  const Numbers n;
  EXPECT_EQ(only(test::modern(n, "torch.OutOfMemoryError", "HIP")).backend, Backend::hip);
  EXPECT_EQ(only(test::modern(n, "", "HIP")).backend, Backend::hip);
  const Oom xpu = only(test::modern(n, "torch.OutOfMemoryError", "XPU", "capacity", " Please use `empty_cache` to release all unoccupied cached memory."));
  EXPECT_EQ(xpu.backend, Backend::xpu);
  EXPECT_NEAR(gib_of(xpu.requested), 2, 1e-6);
  const Oom mps = only("RuntimeError: MPS backend out of memory (MPS allocated: 17.25 GiB, other allocations: 512.00 MiB, max allowed: 18.00 GiB). Tried to allocate 600.00 MiB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable");
  EXPECT_EQ(mps.wording, Wording::mps);
  EXPECT_NEAR(gib_of(mps.allocated), 17.25, 1e-6);
  EXPECT_NEAR(gib_of(mps.allowed), 18, 1e-6);
  EXPECT_NEAR(mps.requested->bytes.mib(), 600, 1e-6);
  const Oom async = parse_oom(Wording::malloc_async, test::async(n));
  EXPECT_NEAR(gib_of(async.allocated), 21.1, 1e-6);
  EXPECT_NEAR(gib_of(async.requested), 2, 1e-6);
  EXPECT_NEAR(gib_of(async.total), 23.64, 1e-6);
  EXPECT_NEAR(gib_of(async.free), 0.75, 1e-6);
  EXPECT_FALSE(async.allowed);  // 2^64 - 1 means no limit
}

struct Case { const char* text; Wording wording; std::int64_t requested; };
class OneLine : public testing::TestWithParam<Case> {};
TEST_P(OneLine, IsRecognised) {
  const Oom o = only(GetParam().text);
  EXPECT_EQ(o.wording, GetParam().wording) << GetParam().text;
  EXPECT_EQ(o.requested ? o.requested->bytes.count : 0, GetParam().requested) << GetParam().text;
}
void PrintTo(const Case& c, std::ostream* out) { *out << c.text; }
INSTANTIATE_TEST_SUITE_P(Wordings, OneLine, testing::Values(
    Case{"RuntimeError: CUDA out of memory. Tried to allocate more than 1EB memory.", Wording::exabyte, 0},
    Case{"[W CUDACachingAllocator.cpp:4711] memory allocation failed with OOM on device 2 while trying to allocate 1073741824 bytes (free: 5242880, total: 25383469056).", Wording::allocator_warning, 1073741824},
    Case{"torch.AcceleratorError: CUDA error: out of memory", Wording::runtime, 0}, Case{"RuntimeError: CUDA error: out of memory", Wording::runtime, 0}, Case{"RuntimeError: HIP error: out of memory", Wording::runtime, 0},
    Case{"RuntimeError: cuda runtime error (2) : out of memory at /b/THC/generic/THCStorage.cu:58", Wording::runtime, 0}, Case{"RuntimeError: CUDA driver error: out of memory", Wording::runtime, 0},
    Case{"numba.cuda.cudadrv.driver.CudaAPIError: [2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY", Wording::runtime, 0}, Case{"Native API failed. Native API returns: -5 (PI_ERROR_OUT_OF_RESOURCES)", Wording::runtime, 0},
    Case{"THCudaCheck FAIL file=/w/aten/src/THC/THCCachingHostAllocator.cpp line=278 error=2 : out of memory", Wording::pinned, 0},
    Case{"RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", Wording::cublas, 0}, Case{"RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", Wording::cublas, 0},
    Case{"RuntimeError: cusolver error: CUSOLVER_STATUS_ALLOC_FAILED", Wording::cublas, 0}, Case{"RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED", Wording::cudnn, 0}, Case{"RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", Wording::cudnn, 0},
    Case{"RuntimeError: Unable to find a valid cuDNN algorithm to run convolution", Wording::cudnn, 0},
    Case{"node7:812:901 [3] include/alloc.h:99 NCCL WARN Failed to CUDA calloc 33554432 bytes", Wording::nccl, 33554432}, Case{"node7:812:901 [3] misc/cudawrap.cc:36 NCCL WARN Cuda failure 2 'out of memory'", Wording::nccl, 0},
    Case{"jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 2147483648 bytes.", Wording::xla, 2147483648}, Case{"XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 1048576000 bytes.", Wording::xla, 1048576000},
    Case{"RuntimeError: Resource exhausted: Failed to allocate request for 96.00MiB (100663296B) on device ordinal 1", Wording::xla, 100663296},
    Case{"W tensorflow/cuda_driver.cc:77] failed to allocate 1.50G (1610612736 bytes) from device: CUDA_ERROR_OUT_OF_MEMORY: out of memory", Wording::tensorflow, 1610612736}, Case{"ResourceExhaustedError: OOM when allocating tensor with shape[64,512,512] and type float", Wording::tensorflow, 0},
    Case{"triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 131072, Hardware limit: 101376. Reducing block sizes or `num_stages` may help.", Wording::shared_memory, 131072},
    Case{"RuntimeError: [enforce fail at alloc_cpu.cpp:83] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)", Wording::host_allocator, 68719476736},
    Case{"numpy.core._exceptions._ArrayMemoryError: Unable to allocate 12.0 GiB for an array with shape (3221225472,)", Wording::host_allocator, 12884901888}, Case{"MemoryError", Wording::host_allocator, 0},
    Case{"terminate called after throwing an instance of 'std::bad_alloc'", Wording::host_allocator, 0}, Case{"RuntimeError: DataLoader worker (pid 77) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory.", Wording::host_allocator, 0},
    Case{"[912345.6] Out of memory: Killed process 4242 (python) total-vm:90000000kB, anon-rss:64000000kB", Wording::host_killed, 0}, Case{"slurmstepd: error: Detected 1 oom-kill event(s) in StepId=99.0.", Wording::host_killed, 0},
    Case{"    Reason: OOMKilled", Wording::host_killed, 0}, Case{"  exitcode  : -9 (pid: 31337)", Wording::host_killed, 0}, Case{"RuntimeError: DataLoader worker (pid 77) is killed by signal: Killed.", Wording::host_killed, 0},
    Case{"run.sh: line 12: 31337 Killed                  python train.py", Wording::host_killed, 0}, Case{"Killed", Wording::host_killed, 0}, Case{"Signal 9 (SIGKILL) received by PID 31337", Wording::host_killed, 0},
    Case{"torch.OutOfMemoryError: CUDA out of memory.", Wording::allocator, 0}));

TEST(OomText, HostDetails) {
  EXPECT_EQ(only("workers are out of shared memory").detail, "shm");
  EXPECT_EQ(only("    Reason: OOMKilled").detail, "cgroup");
  const Oom killed = only("Out of memory: Killed process 4242 (python) total-vm:9kB, anon-rss:64000000kB, file-rss:0kB");
  EXPECT_EQ(killed.allocated->bytes.count, 64000000LL * 1024);
}

TEST(OomText, CodeThatMentionsOneIsNone) {
  for (const char* text : {"    if \"CUDA out of memory\" in str(e):", "except torch.cuda.OutOfMemoryError:", "    except (RuntimeError, torch.OutOfMemoryError) as e:", "raise MemoryError(\"no\")", "from torch.cuda import OutOfMemoryError", "isinstance(e, torch.cuda.OutOfMemoryError)",
                           "# reduce to 16,8,4 if you OOM on VRAM", "loss 3.1 | memory 12.3 GiB", "worker killed time", "skilled workers", "", "step 1/10"}) {
    EXPECT_TRUE(find_oom(text).empty()) << text;
  }
}

TEST(OomText, SeveralInOneLine) {
  Numbers a, b;
  b.tried = "64.00 MiB";
  b.device = 1;
  const std::string text = test::modern(a) + " | " + test::modern(b);
  const auto starts = find_oom(text);
  ASSERT_EQ(starts.size(), 2u);
  EXPECT_EQ(parse_oom(starts[1].wording, std::string_view(text).substr(starts[1].at)).device, 1);
}

TEST(OomText, WrappedAnywhere) {
  EXPECT_TRUE(rc::check([] {
    Numbers n;
    n.process = "22.04 GiB";
    n.others = {{12, "1.00 GiB"}};
    std::string text = test::modern(n);
    const Oom whole = parse_oom(Wording::allocator, text);
    for (char& c : text) {
      if (c == ' ' && *rc::gen::inRange(0, 4) == 0) c = '\n';
    }
    const Oom wrapped = parse_oom(Wording::allocator, text);
    RC_ASSERT(same_numbers(whole, wrapped));
    RC_ASSERT(wrapped.processes.size() == 1u);
  }));
}

TEST(OomText, AnyTextIsSafe) {
  EXPECT_TRUE(rc::check([](const std::string& text) {
    for (const auto& s : find_oom(text)) parse_oom(s.wording, std::string_view(text).substr(s.at));
    for (int w = 0; w <= static_cast<int>(Wording::host_killed); ++w) {
      parse_oom(static_cast<Wording>(w), text);
      oom_continues(static_cast<Wording>(w), text, text);
    }
    read_amount(text);
  }));
}

}  // namespace
}  // namespace dryfit
