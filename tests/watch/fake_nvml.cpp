// A libnvidia-ml.so.1 for tests: answers from the text file that DRYFIT_FAKE_NVML names, read anew at every sample, so that a test can
// change the machine under a running watch. Lines: "gpu INDEX KEY VALUE...", e.g. "gpu 0 used 45000", sizes in MiB, or "init CODE".
// Written against nvml.h's documented calls; C++ without the C++ library, so that any binary can load it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace {

constexpr int kMostGpus = 16, kMostProcesses = 64;
struct Process { unsigned pid; long long mib; };
struct Gpu {
  char name[96], uuid[96];
  long long total, reserved, used;
  int major, minor, utilization, memory_utilization, sm, sm_max, memory_clock, memory_clock_max, pcie, pcie_max, width, width_max, temperature, lost, hidden, old_memory, mig;
  unsigned power, power_limit;
  unsigned long long throttle;
  Process processes[kMostProcesses];
  int process_count;
};
Gpu gpus[kMostGpus];
int gpu_count = 0, init_code = 0;

void number(Gpu& g, const char* key, const char* value) {
  const long long n = atoll(value);
  struct Field { const char* name; int Gpu::*field; };
  const Field kFields[] = {{"major", &Gpu::major}, {"minor", &Gpu::minor}, {"utilization", &Gpu::utilization}, {"memory_utilization", &Gpu::memory_utilization}, {"sm", &Gpu::sm}, {"sm_max", &Gpu::sm_max},
                           {"memory_clock", &Gpu::memory_clock}, {"memory_clock_max", &Gpu::memory_clock_max}, {"pcie", &Gpu::pcie}, {"pcie_max", &Gpu::pcie_max}, {"width", &Gpu::width}, {"width_max", &Gpu::width_max},
                           {"temperature", &Gpu::temperature}, {"lost", &Gpu::lost}, {"hidden", &Gpu::hidden}, {"old_memory", &Gpu::old_memory}, {"mig", &Gpu::mig}};
  for (const Field& f : kFields) {
    if (strcmp(f.name, key) == 0) g.*f.field = static_cast<int>(n);
  }
  if (strcmp(key, "total") == 0) g.total = n;
  if (strcmp(key, "reserved") == 0) g.reserved = n;
  if (strcmp(key, "used") == 0) g.used = n;
  if (strcmp(key, "power") == 0) g.power = static_cast<unsigned>(n);
  if (strcmp(key, "power_limit") == 0) g.power_limit = static_cast<unsigned>(n);
  if (strcmp(key, "throttle") == 0) g.throttle = strtoull(value, nullptr, 0);
  if (strcmp(key, "process") == 0 && g.process_count < kMostProcesses) {
    unsigned pid = 0;
    long long mib = -1;
    if (sscanf(value, "%u %lld", &pid, &mib) >= 1) g.processes[g.process_count++] = {pid, mib};
  }
}

void read_state() {
  const char* path = getenv("DRYFIT_FAKE_NVML");
  FILE* file = path == nullptr ? nullptr : fopen(path, "r");
  if (file == nullptr) return;
  for (int i = 0; i < kMostGpus; ++i) {
    memset(&gpus[i], 0, sizeof gpus[i]);
    strcpy(gpus[i].name, "NVIDIA H100 80GB HBM3");
    snprintf(gpus[i].uuid, sizeof gpus[i].uuid, "GPU-%08d", i);
    gpus[i].total = 81559, gpus[i].reserved = 479, gpus[i].major = 9;
  }
  gpu_count = 0;
  char line[256];
  while (fgets(line, sizeof line, file) != nullptr) {
    int index = 0, at = 0;
    char key[32];
    if (sscanf(line, "init %d", &init_code) == 1) continue;
    if (sscanf(line, "gpu %d %31s %n", &index, key, &at) < 2 || index < 0 || index >= kMostGpus) continue;
    if (index >= gpu_count) gpu_count = index + 1;
    char* value = line + at;
    value[strcspn(value, "\n")] = '\0';
    if (strcmp(key, "name") == 0) snprintf(gpus[index].name, sizeof gpus[index].name, "%s", value);
    else number(gpus[index], key, value);
  }
  fclose(file);
}

Gpu& of(void* device) { return *static_cast<Gpu*>(device); }
int text(const char* from, char* to, unsigned size) {
  if (strlen(from) + 1 > size) return 7;
  strcpy(to, from);
  return 0;
}
int give(void* device, int value, unsigned* out) {
  if (of(device).lost) return 15;
  *out = static_cast<unsigned>(value);
  return value == 0 ? 3 : 0;  // not in the file: not supported
}

}  // namespace

extern "C" {

struct Memory2 { unsigned version; unsigned long long total, reserved, free, used; };
struct Memory1 { unsigned long long total, free, used; };
struct Rates { unsigned gpu, memory; };
struct Info { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };

int nvmlInit_v2() {
  read_state();
  return init_code;
}
int nvmlShutdown() { return 0; }
int nvmlDeviceGetCount_v2(unsigned* n) { return *n = static_cast<unsigned>(gpu_count), 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void** out) { return i < static_cast<unsigned>(gpu_count) ? (*out = &gpus[i], 0) : 2; }
int nvmlDeviceGetName(void* d, char* out, unsigned n) { return text(of(d).name, out, n); }
int nvmlDeviceGetUUID(void* d, char* out, unsigned n) { return text(of(d).uuid, out, n); }
int nvmlDeviceGetCudaComputeCapability(void* d, int* major, int* minor) { return *major = of(d).major, *minor = of(d).minor, 0; }
int nvmlDeviceGetMigMode(void* d, unsigned* now, unsigned* coming) { return *now = *coming = static_cast<unsigned>(of(d).mig), 0; }
int nvmlDeviceGetMaxMigDeviceCount(void*, unsigned* n) { return *n = 7, 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void* d, unsigned i, void** out) { return i < 2 ? (*out = d, 0) : 6; }
int nvmlDeviceGetMemoryInfo_v2(void* d, Memory2* m) {
  if (d == &gpus[0]) read_state();
  const Gpu& g = of(d);
  if (g.lost) return 15;
  if (g.old_memory) return 13;
  if (m->version != 0x02000028) return 25;
  m->total = static_cast<unsigned long long>(g.total) << 20;
  m->reserved = static_cast<unsigned long long>(g.reserved) << 20;
  m->used = static_cast<unsigned long long>(g.used) << 20;
  m->free = m->total - m->reserved - m->used;
  return 0;
}
int nvmlDeviceGetMemoryInfo(void* d, Memory1* m) {
  const Gpu& g = of(d);
  if (g.lost) return 15;
  m->total = static_cast<unsigned long long>(g.total) << 20;
  m->used = static_cast<unsigned long long>(g.used + g.reserved) << 20;
  m->free = m->total - m->used;
  return 0;
}
int nvmlDeviceGetUtilizationRates(void* d, Rates* r) {
  if (of(d).lost) return 15;
  if (of(d).mig) return 3;
  return *r = {static_cast<unsigned>(of(d).utilization), static_cast<unsigned>(of(d).memory_utilization)}, 0;
}
int nvmlDeviceGetPowerUsage(void* d, unsigned* out) { return give(d, static_cast<int>(of(d).power), out); }
int nvmlDeviceGetEnforcedPowerLimit(void* d, unsigned* out) { return give(d, static_cast<int>(of(d).power_limit), out); }
int nvmlDeviceGetTemperature(void* d, unsigned, unsigned* out) { return give(d, of(d).temperature, out); }
int nvmlDeviceGetClockInfo(void* d, unsigned kind, unsigned* out) { return give(d, kind == 1 ? of(d).sm : of(d).memory_clock, out); }
int nvmlDeviceGetMaxClockInfo(void* d, unsigned kind, unsigned* out) { return give(d, kind == 1 ? of(d).sm_max : of(d).memory_clock_max, out); }
int nvmlDeviceGetCurrentClocksThrottleReasons(void* d, unsigned long long* out) { return of(d).lost ? 15 : (*out = of(d).throttle, 0); }
int nvmlDeviceGetCurrPcieLinkGeneration(void* d, unsigned* out) { return give(d, of(d).pcie, out); }
int nvmlDeviceGetMaxPcieLinkGeneration(void* d, unsigned* out) { return give(d, of(d).pcie_max, out); }
int nvmlDeviceGetCurrPcieLinkWidth(void* d, unsigned* out) { return give(d, of(d).width, out); }
int nvmlDeviceGetMaxPcieLinkWidth(void* d, unsigned* out) { return give(d, of(d).width_max, out); }
int nvmlDeviceGetComputeRunningProcesses_v3(void* d, unsigned* n, Info* out) {
  const Gpu& g = of(d);
  if (g.lost) return 15;
  if (g.hidden) return *n = 0, 0;
  const unsigned have = static_cast<unsigned>(g.process_count), room = *n;
  *n = have;
  if (room < have || out == nullptr) return 7;
  for (unsigned i = 0; i < have; ++i) out[i] = {g.processes[i].pid, g.processes[i].mib < 0 ? ~0ULL : static_cast<unsigned long long>(g.processes[i].mib) << 20, ~0U, ~0U};
  return 0;
}

}  // extern "C"
