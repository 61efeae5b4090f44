// See process.hpp: Windows. What a process was started with is read from its own memory, where every process of 64 bits keeps it; which files are open in it is not told.
#include <windows.h>
#include <psapi.h>
#include <shellapi.h>
#include <tlhelp32.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "machine/process.hpp"

namespace dryfit {

namespace {

std::string utf8(std::wstring_view text) {
  std::string out(text.size() * 3, '\0');
  out.resize(static_cast<std::size_t>(WideCharToMultiByte(CP_UTF8, 0, text.data(), static_cast<int>(text.size()), out.data(), static_cast<int>(out.size()), nullptr, nullptr)));
  return out;
}

std::uint64_t ticks_of(const FILETIME& time) { return static_cast<std::uint64_t>(time.dwHighDateTime) << 32 | time.dwLowDateTime; }  // 100 ns

class Opened {
 public:
  // within: also to read its memory.
  explicit Opened(std::int64_t pid, bool within = false) : handle_(OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION | (within ? PROCESS_VM_READ : 0U), FALSE, static_cast<DWORD>(pid))) {
    FILETIME started, ended, kernel, user;
    DWORD status = 0;
    alive_ = handle_ != nullptr && GetExitCodeProcess(handle_, &status) != 0 && status == STILL_ACTIVE && GetProcessTimes(handle_, &started, &ended, &kernel, &user) != 0;
    if (!alive_) return;
    started_ = ticks_of(started);
    busy_ = ticks_of(kernel) + ticks_of(user);
  }
  ~Opened() {
    if (handle_ != nullptr) CloseHandle(handle_);
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

  bool alive() const { return alive_; }
  std::uint64_t started() const { return started_; }
  std::uint64_t busy() const { return busy_; }
  std::optional<Bytes> resident() const {
    PROCESS_MEMORY_COUNTERS memory{};
    if (K32GetProcessMemoryInfo(handle_, &memory, sizeof memory) == 0) return std::nullopt;
    return Bytes(static_cast<std::int64_t>(memory.WorkingSetSize));
  }
  // Command, folder and environment: RTL_USER_PROCESS_PARAMETERS of 64 bits, found from the process environment block.
  void read_parameters(ProcessSample& p) const {
    constexpr std::uint64_t kParameters = 0x20, kFolder = 0x38, kCommand = 0x70, kEnvironment = 0x80, kEnvironmentSize = 0x3F0;
    using Ask = LONG(WINAPI*)(HANDLE, int, void*, ULONG, ULONG*);
    static const auto ask = reinterpret_cast<Ask>(reinterpret_cast<void*>(GetProcAddress(GetModuleHandleW(L"ntdll.dll"), "NtQueryInformationProcess")));
    struct Basic { std::uint64_t status, block, affinity, priority, pid, parent; } basic{};  // ProcessBasicInformation
    if (ask == nullptr || ask(handle_, 0, &basic, sizeof basic, nullptr) < 0) return;
    const auto parameters = number(basic.block + kParameters);
    if (parameters == 0) return;
    int n = 0;
    const std::wstring line = text(parameters + kCommand);
    wchar_t** words = line.empty() ? nullptr : CommandLineToArgvW(line.c_str(), &n);
    for (int i = 0; i < n; ++i) p.command.push_back(utf8(words[i]));
    LocalFree(words);
    if (const std::wstring folder = text(parameters + kFolder); !folder.empty()) p.folder = utf8(folder);
    const std::wstring block = characters(number(parameters + kEnvironment), number(parameters + kEnvironmentSize));
    for (std::size_t at = 0; at < block.size() && block[at] != L'\0';) {
      const std::size_t end = std::min(block.find(L'\0', at), block.size());
      std::string entry = utf8(std::wstring_view(block).substr(at, end - at));
      if (std::ranges::find(kEnvironmentKeys, std::string_view(entry).substr(0, entry.find('='))) != std::end(kEnvironmentKeys)) p.environment.push_back(std::move(entry));
      at = end + 1;
    }
  }

 private:
  // Of its memory; nothing where it may not be read.
  std::uint64_t number(std::uint64_t address) const {
    std::uint64_t out = 0;
    return ReadProcessMemory(handle_, reinterpret_cast<const void*>(address), &out, sizeof out, nullptr) != 0 ? out : 0;
  }
  std::wstring characters(std::uint64_t address, std::uint64_t bytes) const {
    std::wstring out(static_cast<std::size_t>(std::min<std::uint64_t>(bytes, 256 << 10)) / sizeof(wchar_t), L'\0');
    return ReadProcessMemory(handle_, reinterpret_cast<const void*>(address), out.data(), out.size() * sizeof(wchar_t), nullptr) != 0 ? out : std::wstring();
  }
  std::wstring text(std::uint64_t address) const { return characters(number(address + 8), number(address) & 0xFFFF); }  // UNICODE_STRING: bytes, room, address

  HANDLE handle_;
  bool alive_ = false;
  std::uint64_t started_ = 0, busy_ = 0;
};

class Processes final : public ProcessTable {
 public:
  std::optional<ProcessSample> read(std::int64_t pid) override {
    for (ProcessSample& p : all()) {
      if (p.pid != pid) continue;
      p.resident = Opened(pid).resident();
      if (const Opened within(pid, true); within.alive()) within.read_parameters(p);
      return std::move(p);
    }
    return std::nullopt;
  }

  bool update(ProcessSample& p) override {
    const Opened opened(p.pid);
    if (!opened.alive() || opened.started() != p.started) {
      busy_.erase(p.pid);
      return false;
    }
    p.resident = opened.resident();
    const double now = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    const auto before = busy_.find(p.pid);
    if (before != busy_.end() && now > before->second.at) p.cpu = static_cast<double>(opened.busy() - before->second.ticks) / 1e7 / (now - before->second.at);
    busy_[p.pid] = {now, opened.busy()};
    return true;
  }

  std::vector<ProcessSample> all() override {
    std::vector<ProcessSample> out;
    const HANDLE list = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    PROCESSENTRY32W entry{};
    entry.dwSize = sizeof entry;
    for (BOOL more = list != INVALID_HANDLE_VALUE && Process32FirstW(list, &entry); more != FALSE; more = Process32NextW(list, &entry)) {
      const Opened opened(entry.th32ProcessID);
      if (!opened.alive()) continue;  // another user's
      ProcessSample p;
      p.pid = entry.th32ProcessID, p.parent = entry.th32ParentProcessID, p.started = opened.started(), p.name = utf8(entry.szExeFile);
      out.push_back(std::move(p));
    }
    if (list != INVALID_HANDLE_VALUE) CloseHandle(list);
    return out;
  }

  std::optional<bool> uses_gpu(std::int64_t) override { return std::nullopt; }

 private:
  struct Busy { double at; std::uint64_t ticks; };
  std::map<std::int64_t, Busy> busy_;
};

}  // namespace

std::unique_ptr<ProcessTable> make_process_table(std::string) { return std::make_unique<Processes>(); }

}  // namespace dryfit
