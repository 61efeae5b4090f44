// Whole cold processes: median wall time of 50 runs and the largest resident set of the child. Usage: dryfit-processes DRYFIT
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

namespace {

struct Sample { double milliseconds; long kilobytes; };

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
  return {std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count(), usage.ru_maxrss};
}

void measure(const char* name, const std::vector<const char*>& words) {
  std::vector<Sample> samples;
  for (int i = 0; i < 50; ++i) samples.push_back(run(words));
  std::ranges::sort(samples, {}, &Sample::milliseconds);
  const long most = std::ranges::max_element(samples, {}, &Sample::kilobytes)->kilobytes;
  std::printf("%-10s %6.2f ms median   %6.1f MB resident\n", name, samples[25].milliseconds, static_cast<double>(most) / 1000);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  measure("version", {argv[1], "version"});
  measure("check", {argv[1], "check", "-q", "--depth", "20", "--device-batch-size", "16", "--gpu", "h100", "--gpus", "8"});
  measure("plan", {argv[1], "plan", "-q", "--gpu", "RTX 4090"});
}
