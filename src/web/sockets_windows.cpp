// See sockets.hpp: Windows.
#include <winsock2.h>

#include <vector>

#include "web/sockets.hpp"

namespace dryfit::web {

namespace {

SOCKET handle(Socket socket) { return static_cast<SOCKET>(socket); }

std::string told(int code) {
  if (code == WSAEADDRINUSE) return "Address already in use";
  if (code == WSAEACCES) return "Permission denied";
  return "Windows error " + std::to_string(code);
}

Socket prepared(SOCKET socket) {
  if (socket == INVALID_SOCKET) return kNoSocket;
  u_long on = 1;
  ioctlsocket(socket, static_cast<long>(FIONBIO), &on);
  return static_cast<Socket>(socket);
}

std::ptrdiff_t taken(int n) { return n >= 0 ? n : WSAGetLastError() == WSAEWOULDBLOCK ? kLater : kFailed; }

}  // namespace

Socket listen_on(std::uint16_t port, std::string& problem) {
  WSADATA versions;
  if (const int code = WSAStartup(MAKEWORD(2, 2), &versions); code != 0) {
    problem = told(code);
    return kNoSocket;
  }
  const SOCKET socket = ::socket(AF_INET, SOCK_STREAM, 0);
  if (socket == INVALID_SOCKET) {
    problem = told(WSAGetLastError());
    return kNoSocket;
  }
  const BOOL on = TRUE;  // SO_REUSEADDR would let two listen
  setsockopt(socket, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, reinterpret_cast<const char*>(&on), sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 && listen(socket, 16) == 0) return prepared(socket);
  problem = told(WSAGetLastError());
  closesocket(socket);
  return kNoSocket;
}

int port_of(Socket socket) {
  sockaddr_in address{};
  int size = sizeof address;
  getsockname(handle(socket), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

Socket accept(Socket listener) { return prepared(::accept(handle(listener), nullptr, nullptr)); }
std::ptrdiff_t receive(Socket socket, char* into, std::size_t size) { return taken(::recv(handle(socket), into, static_cast<int>(size), 0)); }
std::ptrdiff_t send(Socket socket, std::string_view bytes) { return taken(::send(handle(socket), bytes.data(), static_cast<int>(bytes.size()), 0)); }
void close(Socket socket) { closesocket(handle(socket)); }

void wait(std::span<Waiting> sockets, int milliseconds) {
  std::vector<WSAPOLLFD> waits;
  for (const Waiting& w : sockets) waits.push_back({handle(w.socket), static_cast<SHORT>((w.reads ? POLLIN : 0) | (w.writes ? POLLOUT : 0)), 0});
  WSAPoll(waits.data(), static_cast<ULONG>(waits.size()), milliseconds);
  for (std::size_t i = 0; i < waits.size(); ++i) {
    sockets[i].ready = waits[i].revents != 0;
    sockets[i].readable = (waits[i].revents & (POLLIN | POLLHUP)) != 0;
  }
}

}  // namespace dryfit::web
