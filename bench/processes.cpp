// Whole cold processes: median wall time of 50 runs and the largest resident set of the child; and what a live watch costs a second, on
// eight GPUs of a driver library that answers from a file. Usage: dryfit-processes DRYFIT [DRIVER_LIBRARY]
// One file through the doctor: time, processor time, resident set in proportion to the file. Usage: dryfit-processes --file DRYFIT FILE
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Sample { double milliseconds; long kilobytes; double cpu_seconds = 0; };

Sample run(std::vector<const char*> words) {
  words.push_back(nullptr);
  const auto start = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child == 0) {
    const int null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    dup2(null, 2);
    execv(words[0], const_cast<char* const*>(words.data()));
    _exit(127);
  }
  rusage usage{};
  wait4(child, nullptr, 0, &usage);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  return {std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count(), usage.ru_maxrss, seconds(usage.ru_utime) + seconds(usage.ru_stime)};
}

// The best of three: other work on the machine only ever adds.
int measure_file(const char* dryfit, const char* path) {
  struct stat info{};
  if (stat(path, &info) != 0 || info.st_size == 0) return 2;
  Sample best{1e300, 0, 1e300};
  for (int i = 0; i < 3; ++i) {
    const Sample s = run({dryfit, "doctor", path, "-q"});
    best = {std::min(best.milliseconds, s.milliseconds), std::max(best.kilobytes, s.kilobytes), std::min(best.cpu_seconds, s.cpu_seconds)};
  }
  const double size = static_cast<double>(info.st_size);
  std::printf("snapshot   %6.2f s wall, %.2f s of a core   %6.1f MB resident, %.2f times the file of %.0f MB\n", best.milliseconds / 1000, best.cpu_seconds, static_cast<double>(best.kilobytes) * 1.024e-3, static_cast<double>(best.kilobytes) * 1024 / size, size / 1e6);
  return 0;
}

void measure(const char* name, const std::vector<const char*>& words) {
  std::vector<Sample> samples;
  for (int i = 0; i < 50; ++i) samples.push_back(run(words));
  std::ranges::sort(samples, {}, &Sample::milliseconds);
  const long most = std::ranges::max_element(samples, {}, &Sample::kilobytes)->kilobytes;
  std::printf("%-10s %6.2f ms median   %6.1f MB resident\n", name, samples[25].milliseconds, static_cast<double>(most) / 1000);
}

// CPU seconds and resident set of `dryfit watch` drawn on a pseudo-terminal for some seconds.
Sample watched(const char* dryfit, pid_t job, double seconds) {
  const int primary = posix_openpt(O_RDWR | O_NOCTTY);
  if (primary < 0 || grantpt(primary) != 0 || unlockpt(primary) != 0) return {-1, 0};
  const std::string terminal = ptsname(primary), pid = std::to_string(job);
  const pid_t child = fork();
  if (child == 0) {
    setsid();
    const int end = open(terminal.c_str(), O_RDWR);
    winsize size{40, 120, 0, 0};
    ioctl(end, TIOCSWINSZ, &size);
    for (int i = 0; i < 3; ++i) dup2(end, i);
    setenv("TERM", "xterm", 1);
    execl(dryfit, dryfit, "watch", "--pid", pid.c_str(), nullptr);
    _exit(127);
  }
  std::thread reader([&] {
    char buffer[65536];
    while (read(primary, buffer, sizeof buffer) > 0) {}
  });
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  kill(child, SIGTERM);
  rusage usage{};
  wait4(child, nullptr, 0, &usage);
  const auto count = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  reader.detach();
  return {count(usage.ru_utime) + count(usage.ru_stime), usage.ru_maxrss};
}

void measure_watch(const char* dryfit, const char* library) {
  char state[] = "/tmp/dryfit_bench_XXXXXX";
  std::FILE* file = fdopen(mkstemp(state), "w");
  const pid_t job = fork();  // looks like a training process and does nothing
  if (job == 0) {
    execl("/proc/self/exe", "python", "-m", "scripts.base_train", "--depth=26", "--device-batch-size=16", nullptr);
    _exit(127);
  }
  for (int i = 0; i < 8; ++i) std::fprintf(file, "gpu %d used 40000\ngpu %d utilization 90\ngpu %d power 690000\ngpu %d process %d 39000\n", i, i, i, i, static_cast<int>(job));
  std::fclose(file);
  setenv("DRYFIT_NVML", library, 1);
  setenv("DRYFIT_FAKE_NVML", state, 1);
  const Sample start = watched(dryfit, job, 1.5), whole = watched(dryfit, job, 21.5);
  kill(job, SIGKILL);
  waitpid(job, nullptr, 0);
  std::remove(state);
  if (start.milliseconds < 0) return;
  std::printf("watch      %6.2f %% of a core at 1 Hz, 8 GPUs   %6.1f MB resident\n", (whole.milliseconds - start.milliseconds) / 20 * 100, static_cast<double>(whole.kilobytes) / 1000);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2 && std::strcmp(argv[2], "scripts.base_train") == 0) return pause();
  if (argc == 4 && std::strcmp(argv[1], "--file") == 0) return measure_file(argv[2], argv[3]);
  if (argc != 2 && argc != 3) return 2;
  measure("version", {argv[1], "version"});
  measure("check", {argv[1], "check", "-q", "--depth", "20", "--device-batch-size", "16", "--gpu", "h100", "--gpus", "8"});
  measure("plan", {argv[1], "plan", "-q", "--gpu", "RTX 4090"});
  if (argc == 3) measure_watch(argv[1], argv[2]);
}
