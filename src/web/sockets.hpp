// Sockets of this computer alone, none of which waits: the calls that Windows has otherwise. sockets_posix.cpp, sockets_windows.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace dryfit::web {

using Socket = std::intptr_t;
constexpr Socket kNoSocket = -1;
constexpr std::ptrdiff_t kFailed = -1, kLater = -2;  // of receive and send

// 127.0.0.1, port 0: any that is free. None: `problem` tells why.
Socket listen_on(std::uint16_t port, std::string& problem);
int port_of(Socket socket);
Socket accept(Socket listener);                                            // none: nobody asks any more
std::ptrdiff_t receive(Socket socket, char* into, std::size_t size);       // 0: the other side has closed
std::ptrdiff_t send(Socket socket, std::string_view bytes);                // how many were taken
void close(Socket socket);

struct Waiting { Socket socket; bool reads, writes, readable = false, ready = false; };
// Until one of them can do what it waits for, or has failed (ready), or the time is over; -1: no end.
void wait(std::span<Waiting> sockets, int milliseconds);

}  // namespace dryfit::web
