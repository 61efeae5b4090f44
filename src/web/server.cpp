// See server.hpp.
#include "web/server.hpp"

#include <algorithm>
#include <chrono>
#include <vector>

#include "base/text.hpp"
#include "web/sockets.hpp"

namespace dryfit::web {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kLongestHead = 16 << 10, kMostConnections = 64;
constexpr auto kPatience = std::chrono::seconds(20);
constexpr std::int64_t kPort = 8765;

struct Connection {
  Socket socket = kNoSocket;
  std::string in, out;
  std::size_t sent = 0;
  Clock::time_point since = Clock::now();
};

// A head without the field takes anything (RFC 9110, 12.5.3).
bool takes_gzip(std::string_view head) {
  const std::string lower = to_lower(head);
  constexpr std::string_view kField = "\r\naccept-encoding:";
  const std::size_t at = lower.find(kField);
  if (at == std::string::npos) return true;
  const std::size_t from = at + kField.size();
  const std::string_view value = std::string_view(lower).substr(from, lower.find("\r\n", from) - from);
  for (const std::string_view name : {"gzip", "*"}) {
    const std::size_t found = value.find(name);
    if (found != std::string_view::npos) return !value.substr(found + name.size()).starts_with(";q=0") || value.substr(found + name.size()).starts_with(";q=0.");
  }
  return false;
}

std::string answer(std::string_view status, std::string_view type, std::string_view body, bool with_body, std::string_view fields = {}) {
  std::string out = "HTTP/1.1 " + std::string(status) + "\r\n" + std::string(fields) + "Content-Type: " + std::string(type) + "\r\nContent-Length: " + std::to_string(body.size()) +
                    "\r\nCache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\nContent-Security-Policy: frame-ancestors 'none'\r\nConnection: close\r\n\r\n";
  if (with_body) out += body;
  return out;
}

// Reads what there is, writes what is due; false: done with.
bool advance(Connection& c, bool readable, std::span<const File> files) {
  if (c.out.empty() && readable) {
    char piece[4096];
    const std::ptrdiff_t n = receive(c.socket, piece, sizeof piece);
    if (n == 0 || n == kFailed) return false;
    if (n > 0) c.in.append(piece, static_cast<std::size_t>(n));
    if (c.in.find("\r\n\r\n") != std::string::npos || c.in.size() > kLongestHead) c.out = respond(c.in, files);
  }
  while (!c.out.empty() && c.sent < c.out.size()) {
    const std::ptrdiff_t n = send(c.socket, std::string_view(c.out).substr(c.sent));
    if (n < 0) return n == kLater;
    c.sent += static_cast<std::size_t>(n);
  }
  return c.out.empty();
}

void loop(Socket listener, std::span<const File> files) {
  std::vector<Connection> connections;
  while (true) {
    std::vector<Waiting> waits{{listener, connections.size() < kMostConnections, false}};
    for (const Connection& c : connections) waits.push_back({c.socket, c.out.empty(), !c.out.empty()});
    wait(waits, connections.empty() ? -1 : 1000);
    const auto now = Clock::now();
    for (std::size_t i = connections.size(); i-- > 0;) {
      const Waiting& w = waits[i + 1];
      const bool goes_on = w.ready ? advance(connections[i], w.readable, files) : now - connections[i].since < kPatience;
      if (goes_on) continue;
      close(connections[i].socket);
      connections.erase(connections.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (!waits[0].readable) continue;
    const Socket socket = accept(listener);
    if (socket != kNoSocket) connections.push_back({socket, {}, {}, 0, now});
  }
}

}  // namespace

std::string respond(std::string_view head, std::span<const File> files) {
  const std::string_view line = head.substr(0, head.find("\r\n"));
  const std::size_t first = line.find(' '), last = line.rfind(' ');
  const bool whole = head.find("\r\n\r\n") != std::string_view::npos && first != std::string_view::npos && last > first && line.substr(last + 1).starts_with("HTTP/1.");
  if (!whole) return answer("400 Bad Request", "text/plain", "not a request of HTTP/1.1\n", true);
  const std::string_view method = line.substr(0, first);
  if (method != "GET" && method != "HEAD") return answer("405 Method Not Allowed", "text/plain", "GET and HEAD alone\n", true, "Allow: GET, HEAD\r\n");
  std::string_view path = line.substr(first + 1, last - first - 1);
  path = path.substr(0, path.find('?'));
  if (path == "/") path = "/index.html";
  const auto file = std::ranges::find(files, path, &File::path);
  if (file == files.end()) return answer("404 Not Found", "text/plain", "there is no such file; the page is /\n", method == "GET");
  if (!takes_gzip(head)) return answer("406 Not Acceptable", "text/plain", "this file is here as gzip alone\n", method == "GET");
  return answer("200 OK", file->type, file->bytes, method == "GET", "Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n");
}

Result<int> serve(const cli::Options& options, const cli::Env& env) {
  if (!options.positional.empty()) return fail("stray_word", "'" + options.positional[0].substr(0, 60) + "' is not a flag", "dryfit web --port " + std::to_string(kPort), "web");
  std::int64_t port = kPort;
  if (const auto text = options.get("port")) {
    const auto n = parse_int(*text, "--port");
    if (!n) return std::unexpected(n.error());
    if (*n < 0 || *n > 65535) return fail("bad_value", "--port " + text->substr(0, 30) + " is out of range", "use 1 to 65535, or 0 for any that is free", "--port");
    port = *n;
  }
  if (site().empty()) return fail("no_page", "this dryfit was built without the page", "./dryfit.sh web builds and serves it; a release has it inside", "web");
  std::string problem;
  const Socket listener = listen_on(static_cast<std::uint16_t>(port), problem);
  if (listener == kNoSocket) return fail("no_port", "cannot listen on 127.0.0.1:" + std::to_string(port) + ": " + problem, "choose another: --port 0 takes any that is free", "--port");
  env.out("http://127.0.0.1:" + std::to_string(port_of(listener)) + "/\n");
  if (!options.has("quiet")) env.err("serving on this computer alone; Ctrl-C ends it\n");
  loop(listener, site());
  return cli::kOk;
}

}  // namespace dryfit::web
