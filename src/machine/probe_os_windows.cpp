// See probe_os.hpp: Windows, by its wide calls, since the narrow ones know UTF-8 only where a whole process does.
#include <windows.h>
#include <fcntl.h>
#include <io.h>
#include <shellapi.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "machine/probe_os.hpp"

namespace dryfit::os {

namespace {

std::wstring wide(std::string_view text) {
  std::wstring out(text.size(), L'\0');  // never longer in UTF-16
  out.resize(static_cast<std::size_t>(MultiByteToWideChar(CP_UTF8, 0, text.data(), static_cast<int>(text.size()), out.data(), static_cast<int>(out.size()))));
  return out;
}

std::string narrow(std::wstring_view text) {
  std::string out(text.size() * 3, '\0');
  out.resize(static_cast<std::size_t>(WideCharToMultiByte(CP_UTF8, 0, text.data(), static_cast<int>(text.size()), out.data(), static_cast<int>(out.size()), nullptr, nullptr)));
  return out;
}

// What Windows says of a failure, as the number that the other systems give.
int as_errno(DWORD code) {
  switch (code) {
    case ERROR_FILE_NOT_FOUND: case ERROR_PATH_NOT_FOUND: case ERROR_INVALID_NAME: case ERROR_INVALID_DRIVE: case ERROR_BAD_NETPATH: case ERROR_BAD_NET_NAME: return ENOENT;
    case ERROR_ACCESS_DENIED: case ERROR_SHARING_VIOLATION: case ERROR_LOCK_VIOLATION: case ERROR_WRITE_PROTECT: return EACCES;
    case ERROR_FILE_EXISTS: case ERROR_ALREADY_EXISTS: return EEXIST;
    case ERROR_DIRECTORY: return ENOTDIR;
    case ERROR_DISK_FULL: case ERROR_HANDLE_DISK_FULL: return ENOSPC;
    case ERROR_BROKEN_PIPE: case ERROR_NO_DATA: case ERROR_PIPE_NOT_CONNECTED: return EPIPE;
    case ERROR_INVALID_HANDLE: return EBADF;
    default: return EIO;
  }
}
int last_error() { return as_errno(GetLastError()); }

HANDLE handle_of(int file) { return reinterpret_cast<HANDLE>(_get_osfhandle(file)); }

FileInfo told(const BY_HANDLE_FILE_INFORMATION& info, bool on_disk) {
  const auto whole = [](DWORD high, DWORD low) { return static_cast<std::uint64_t>(high) << 32 | low; };
  constexpr std::int64_t kTicks = 10'000'000, kFrom1601 = 11'644'473'600;  // FILETIME: 100 ns since 1601
  const bool folder = (info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
  const auto modified = static_cast<std::int64_t>(whole(info.ftLastWriteTime.dwHighDateTime, info.ftLastWriteTime.dwLowDateTime)) / kTicks - kFrom1601;
  return {folder ? FileInfo::Kind::folder : on_disk ? FileInfo::Kind::regular : FileInfo::Kind::other, static_cast<std::int64_t>(whole(info.nFileSizeHigh, info.nFileSizeLow)), modified,
          info.dwVolumeSerialNumber, whole(info.nFileIndexHigh, info.nFileIndexLow)};
}

std::optional<FileInfo> info_of(HANDLE file) {
  BY_HANDLE_FILE_INFORMATION found{};
  const bool on_disk = GetFileType(file) == FILE_TYPE_DISK;
  if (on_disk && GetFileInformationByHandle(file, &found) == 0) {
    errno = last_error();
    return std::nullopt;
  }
  return on_disk ? told(found, true) : FileInfo{};
}

constexpr DWORD kShared = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;  // others may write on, rename, delete: as on the other systems

bool is_console(HANDLE file) {
  DWORD mode = 0;
  return GetConsoleMode(file, &mode) != 0;
}

// A word of a command line as CommandLineToArgvW reads it back.
std::wstring quoted(const std::wstring& word) {
  if (!word.empty() && word.find_first_of(L" \t\"") == std::wstring::npos) return word;
  std::wstring out = L"\"";
  std::size_t slashes = 0;
  for (const wchar_t c : word) {
    slashes = c == L'\\' ? slashes + 1 : 0;
    if (c == L'"') out.append(slashes + 1, L'\\');
    out += c;
  }
  return out.append(slashes, L'\\') + L'"';
}

std::wstring wide_variable(const wchar_t* name) {
  std::wstring value(GetEnvironmentVariableW(name, nullptr, 0), L'\0');
  value.resize(GetEnvironmentVariableW(name, value.data(), static_cast<DWORD>(value.size())));
  return value;
}

// Where Windows keeps a program, then PATH; never the folder that one happens to stand in.
std::wstring found_program(const std::string& name) {
  std::wstring system(MAX_PATH, L'\0');
  system.resize(GetSystemDirectoryW(system.data(), MAX_PATH));
  std::wstring path(32768, L'\0');
  path.resize(SearchPathW((system + L";" + wide_variable(L"PATH")).c_str(), wide(name).c_str(), L".exe", static_cast<DWORD>(path.size()), path.data(), nullptr));
  return path;
}

}  // namespace

int open(const std::string& path, Access access) {
  const bool reads = access == Access::read || access == Access::read_now;
  const DWORD wanted = reads ? GENERIC_READ : access == Access::lock ? GENERIC_READ | GENERIC_WRITE : GENERIC_WRITE;
  const DWORD how = reads ? OPEN_EXISTING : access == Access::lock ? OPEN_ALWAYS : access == Access::write_new ? CREATE_NEW : CREATE_ALWAYS;
  const HANDLE file = CreateFileW(wide(path).c_str(), wanted, kShared, nullptr, how, FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) {
    errno = last_error();
    return -1;
  }
  return _open_osfhandle(reinterpret_cast<std::intptr_t>(file), _O_BINARY | _O_NOINHERIT);
}

int close(int file) { return _close(file) == 0 ? 0 : errno; }

std::ptrdiff_t read(int file, char* into, std::size_t size) { return _read(file, into, static_cast<unsigned>(std::min<std::size_t>(size, 1 << 30))); }

std::ptrdiff_t read_at(int file, char* into, std::size_t size, std::int64_t at) {
  OVERLAPPED place{};
  place.Offset = static_cast<DWORD>(at);
  place.OffsetHigh = static_cast<DWORD>(at >> 32);
  DWORD n = 0;
  if (ReadFile(handle_of(file), into, static_cast<DWORD>(std::min<std::size_t>(size, 1 << 30)), &n, &place) != 0) return n;
  if (GetLastError() == ERROR_HANDLE_EOF) return 0;
  errno = last_error();
  return -1;
}

int write(int file, std::string_view text) {
  const HANDLE to = handle_of(file);
  DWORD n = 0;
  if (is_console(to)) {  // takes characters, whatever its code page is
    std::wstring left = wide(text);
    for (std::size_t at = 0; at < left.size(); at += n) {
      if (WriteConsoleW(to, left.data() + at, static_cast<DWORD>(std::min<std::size_t>(left.size() - at, 8192)), &n, nullptr) == 0) return last_error();
    }
    return 0;
  }
  for (; !text.empty(); text.remove_prefix(n)) {
    if (WriteFile(to, text.data(), static_cast<DWORD>(std::min<std::size_t>(text.size(), 1 << 20)), &n, nullptr) == 0) return last_error();
  }
  return 0;
}

int flush(int file) { return FlushFileBuffers(handle_of(file)) != 0 ? 0 : last_error(); }

bool lock(int file) {
  OVERLAPPED start{};
  return LockFileEx(handle_of(file), LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, &start) != 0;
}

std::optional<FileInfo> info(const std::string& path) {
  const HANDLE file = CreateFileW(wide(path).c_str(), FILE_READ_ATTRIBUTES, kShared, nullptr, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, nullptr);  // the flag: folders too
  if (file == INVALID_HANDLE_VALUE) {
    errno = last_error();
    return std::nullopt;
  }
  const auto found = info_of(file);
  CloseHandle(file);
  return found;
}
std::optional<FileInfo> info(int file) { return info_of(handle_of(file)); }

bool readable(const std::string& path) {
  const int file = open(path, Access::read);
  if (file >= 0) close(file);
  return file >= 0;
}

int replace(const std::string& from, const std::string& to) {
  return MoveFileExW(wide(from).c_str(), wide(to).c_str(), MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH) != 0 ? 0 : last_error();
}
void remove(const std::string& path) { DeleteFileW(wide(path).c_str()); }
int make_folder(const std::string& path) {
  if (CreateDirectoryW(wide(path).c_str(), nullptr) != 0) return 0;
  const int problem = last_error();
  const auto there = info(path);  // also a drive, which "cannot be made"
  return there && there->kind == FileInfo::Kind::folder ? 0 : problem;
}
void flush_folder(const std::string&) {}  // replace() writes through

std::string absolute(const std::string& path) {
  std::wstring out(32768, L'\0');
  out.resize(GetFullPathNameW(wide(path).c_str(), static_cast<DWORD>(out.size()), out.data(), nullptr));
  return out.empty() ? path : narrow(out);
}
bool is_absolute(std::string_view path) { return path.starts_with('/') || path.starts_with('\\') || (path.size() > 2 && path[1] == ':' && (path[2] == '/' || path[2] == '\\')); }

std::vector<std::string> arguments(int, const char* const*) {
  int n = 0;
  wchar_t** words = CommandLineToArgvW(GetCommandLineW(), &n);
  std::vector<std::string> out;
  for (int i = 1; i < n; ++i) out.push_back(narrow(words[i]));
  LocalFree(words);
  return out;
}

std::optional<std::string> variable(const char* name) {
  SetLastError(ERROR_SUCCESS);
  const std::wstring value = wide_variable(wide(name).c_str());
  if (!value.empty() || GetLastError() != ERROR_ENVVAR_NOT_FOUND) return narrow(value);
  return std::string_view(name) == "HOME" ? variable("USERPROFILE") : std::nullopt;
}

std::int64_t process_number() { return GetCurrentProcessId(); }

void prepare_streams() {
  for (const int file : {kInput, kOutput, kErrors}) _setmode(file, _O_BINARY);
}

bool is_terminal(int file) {
  DWORD mode = 0;
  const HANDLE console = handle_of(file);
  if (GetConsoleMode(console, &mode) == 0) return false;
  return file == kInput || (mode & ENABLE_VIRTUAL_TERMINAL_PROCESSING) != 0 || SetConsoleMode(console, mode | ENABLE_PROCESSED_OUTPUT | ENABLE_VIRTUAL_TERMINAL_PROCESSING) != 0;
}

std::optional<Size> terminal_size() {
  CONSOLE_SCREEN_BUFFER_INFO now{};
  if (GetConsoleScreenBufferInfo(handle_of(kOutput), &now) == 0) return std::nullopt;
  return Size{now.srWindow.Right - now.srWindow.Left + 1, now.srWindow.Bottom - now.srWindow.Top + 1};
}

std::optional<std::string> output_of(const std::string& program, const std::vector<std::string>& words, int seconds, std::size_t most) {
  const std::wstring path = found_program(program);
  if (path.empty()) return std::nullopt;
  std::wstring line = quoted(path);
  for (const std::string& word : words) line += L" " + quoted(wide(word));
  SECURITY_ATTRIBUTES inherited{sizeof inherited, nullptr, TRUE};
  HANDLE from = nullptr, into = nullptr;
  if (CreatePipe(&from, &into, &inherited, 1 << 16) == 0) return std::nullopt;
  SetHandleInformation(from, HANDLE_FLAG_INHERIT, 0);
  const HANDLE nothing = CreateFileW(L"NUL", GENERIC_READ | GENERIC_WRITE, kShared, &inherited, OPEN_EXISTING, 0, nullptr);
  STARTUPINFOW start{};
  start.cb = sizeof start;
  start.dwFlags = STARTF_USESTDHANDLES;
  start.hStdInput = start.hStdError = nothing;
  start.hStdOutput = into;
  PROCESS_INFORMATION child{};
  const bool started = CreateProcessW(path.c_str(), line.data(), nullptr, nullptr, TRUE, CREATE_NO_WINDOW, nullptr, nullptr, &start, &child) != 0;
  CloseHandle(into);
  CloseHandle(nothing);
  std::string text;
  if (started) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    char buffer[4096];
    DWORD waiting = 0, n = 0;
    while (text.size() < most && std::chrono::steady_clock::now() < end && PeekNamedPipe(from, nullptr, 0, nullptr, &waiting, nullptr) != 0) {
      if (waiting == 0) Sleep(5);
      else if (ReadFile(from, buffer, sizeof buffer, &n, nullptr) != 0) text.append(buffer, n);
    }
    TerminateProcess(child.hProcess, 1);
    CloseHandle(child.hThread);
    CloseHandle(child.hProcess);
  }
  CloseHandle(from);
  return started ? std::optional(std::move(text)) : std::nullopt;
}

// A name alone is looked for where Windows keeps its own libraries, never in the current folder.
void* load(const std::string& library) {
  const bool placed = library.find_first_of("/\\") != std::string::npos;
  return LoadLibraryExW(wide(library).c_str(), nullptr, placed ? LOAD_WITH_ALTERED_SEARCH_PATH : LOAD_LIBRARY_SEARCH_SYSTEM32);
}
void* find(void* library, const char* name) { return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name)); }
void unload(void* library) { FreeLibrary(static_cast<HMODULE>(library)); }

bool windows_manages_gpus() { return true; }

}  // namespace dryfit::os
