// See sockets.hpp: Linux and macOS.
#include "web/sockets.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace dryfit::web {

namespace {

int descriptor(Socket socket) { return static_cast<int>(socket); }

Socket prepared(int socket) {
  if (socket < 0) return kNoSocket;
  fcntl(socket, F_SETFD, FD_CLOEXEC);
  fcntl(socket, F_SETFL, O_NONBLOCK);
  return socket;
}

std::ptrdiff_t taken(ssize_t n) { return n >= 0 ? n : errno == EAGAIN || errno == EINTR ? kLater : kFailed; }

}  // namespace

Socket listen_on(std::uint16_t port, std::string& problem) {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  if (socket < 0) {
    problem = std::strerror(errno);
    return kNoSocket;
  }
  const int on = 1;
  setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 && listen(socket, 16) == 0) return prepared(socket);
  problem = std::strerror(errno);
  ::close(socket);
  return kNoSocket;
}

int port_of(Socket socket) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  getsockname(descriptor(socket), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

Socket accept(Socket listener) { return prepared(::accept(descriptor(listener), nullptr, nullptr)); }
std::ptrdiff_t receive(Socket socket, char* into, std::size_t size) { return taken(::recv(descriptor(socket), into, size, 0)); }
std::ptrdiff_t send(Socket socket, std::string_view bytes) { return taken(::send(descriptor(socket), bytes.data(), bytes.size(), 0)); }
void close(Socket socket) { ::close(descriptor(socket)); }

void wait(std::span<Waiting> sockets, int milliseconds) {
  std::vector<pollfd> waits;
  for (const Waiting& w : sockets) waits.push_back({descriptor(w.socket), static_cast<short>((w.reads ? POLLIN : 0) | (w.writes ? POLLOUT : 0)), 0});
  poll(waits.data(), static_cast<nfds_t>(waits.size()), milliseconds);
  for (std::size_t i = 0; i < waits.size(); ++i) {
    sockets[i].ready = waits[i].revents != 0;
    sockets[i].readable = (waits[i].revents & (POLLIN | POLLHUP)) != 0;
  }
}

}  // namespace dryfit::web
