// What differs between operating systems, once: files, folders, environment, terminal, child processes, libraries. Thin calls over descriptors; nothing is decided here.
// probe_os_posix.cpp for Linux and macOS, probe_os_windows.cpp for Windows. Texts and paths are UTF-8, files are bytes as they are. Where a call fails, errno (or the
// number it gives) tells why, on Windows too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dryfit::os {

// ---- files. A descriptor is not handed on to children.
enum class Access {
  read,
  read_now,     // never waits for the writer of a pipe
  write,        // anew, as the umask says
  write_own,    // anew, for this user alone
  write_new,    // for this user alone; fails where the name is taken
  lock,         // read and write, made where missing, for this user alone
};
#ifdef _WIN32
constexpr bool kWindows = true;
#else
constexpr bool kWindows = false;
#endif

constexpr int kInput = 0, kOutput = 1, kErrors = 2;
int open(const std::string& path, Access access);       // -1: see errno
int close(int file);                                    // 0, or why what was written is not safe
std::ptrdiff_t read(int file, char* into, std::size_t size);                        // 0: the end; -1: see errno
std::ptrdiff_t read_at(int file, char* into, std::size_t size, std::int64_t at);    // the same of a place
int write(int file, std::string_view text);             // all of it; 0, or why not. To a terminal: as text
int flush(int file);                                    // onto the disk
bool lock(int file);                                    // waits; until it is closed

struct FileInfo {
  enum class Kind { regular, folder, other } kind = Kind::other;
  std::int64_t size = 0, modified = 0;                  // bytes, seconds since 1970
  std::uint64_t device = 0, number = 0;                 // together: which file it is, whatever its name
};
std::optional<FileInfo> info(const std::string& path);  // none: see errno
std::optional<FileInfo> info(int file);
bool readable(const std::string& path);
int replace(const std::string& from, const std::string& to);  // to's name is from's file at once; 0, or why not
void remove(const std::string& path);
int make_folder(const std::string& path);               // for this user alone; 0 also where it is there
void flush_folder(const std::string& path);             // the names in it, where the system does not by itself
std::string absolute(const std::string& path);          // as it is where there is none
bool is_absolute(std::string_view path);

// ---- this process
std::vector<std::string> arguments(int argc, const char* const* argv);  // without its own name
std::optional<std::string> variable(const char* name);  // HOME is the user's folder everywhere
std::int64_t process_number();
void prepare_streams();                                 // bytes stay as they are; a closed pipe is an error of write, not a signal
bool is_terminal(int file);                             // one that understands escape sequences
struct Size { int width, height; };
std::optional<Size> terminal_size();                    // of standard output

// ---- others
// What a program writes to standard output, `seconds` and `most` bytes of it at most; it is found as a shell finds it, and ended then. None: it cannot be started.
std::optional<std::string> output_of(const std::string& program, const std::vector<std::string>& words, int seconds, std::size_t most);
void* load(const std::string& library);                 // null: there is none
void* find(void* library, const char* name);
void unload(void* library);
// Whether CUDA's memory is managed by Windows (WDDM), also from within WSL: CUDA then sees the whole of it.
bool windows_manages_gpus();

}  // namespace dryfit::os
