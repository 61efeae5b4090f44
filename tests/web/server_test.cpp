// What the loopback server answers to any head of a request. The server as a process: tests/cli/web_test.py.
#include "web/server.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace dryfit::web {
namespace {

constexpr File kFiles[] = {{"/index.html", "text/html", "<p>hello"}, {"/app.js", "text/javascript", "1"}};

std::string status(std::string_view head) {
  const std::string all = respond(head, kFiles);
  return all.substr(0, all.find("\r\n"));
}

TEST(Respond, GivesTheFilesItHolds) {
  EXPECT_TRUE(respond("GET / HTTP/1.1\r\nHost: x\r\n\r\n", kFiles).ends_with("\r\n\r\n<p>hello"));
  EXPECT_TRUE(respond("GET /index.html?x=/app.js HTTP/1.0\r\n\r\n", kFiles).ends_with("<p>hello"));
  const std::string head = respond("HEAD /app.js HTTP/1.1\r\n\r\n", kFiles);
  EXPECT_TRUE(head.ends_with("\r\n\r\n"));
  EXPECT_NE(head.find("Content-Length: 1\r\n"), std::string::npos);
  EXPECT_NE(head.find("Content-Type: text/javascript\r\n"), std::string::npos);
}

TEST(Respond, SendsGzipToWhomeverTakesIt) {
  const auto asking = [](std::string_view value) { return respond("GET / HTTP/1.1\r\nAccept-Encoding: " + std::string(value) + "\r\nHost: x\r\n\r\n", kFiles); };
  EXPECT_NE(respond("GET / HTTP/1.1\r\n\r\n", kFiles).find("\r\nContent-Encoding: gzip\r\n"), std::string::npos);
  for (const char* value : {"gzip, deflate, br, zstd", "br;q=1, GZIP;q=0.5", "*", "deflate, gzip"}) EXPECT_TRUE(asking(value).starts_with("HTTP/1.1 200 ")) << value;
  for (const char* value : {"", "identity", "br", "gzip;q=0", "*;q=0", "br, gzip;q=0, deflate"}) EXPECT_TRUE(asking(value).starts_with("HTTP/1.1 406 ")) << value;
}

TEST(Respond, RefusesTheRest) {
  for (const char* path : {"/../etc/passwd", "/%2e%2e/etc/passwd", "//index.html", "/index.html/", "/no", "index.html", "http://x/index.html"}) EXPECT_EQ(status("GET " + std::string(path) + " HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found") << path;
  for (const char* method : {"POST", "PUT", "get", "OPTIONS"}) EXPECT_EQ(status(std::string(method) + " / HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed") << method;
  for (const char* head : {"", "\r\n\r\n", "GET\r\n\r\n", "GET /\r\n\r\n", "GET / HTTP/2\r\n\r\n", "GET / HTTP/1.1", " \r\n\r\n"}) EXPECT_EQ(status(head), "HTTP/1.1 400 Bad Request") << head;
}

RC_GTEST_PROP(RespondProperties, AnswersAnyText, (const std::string& head)) { RC_ASSERT(respond(head, kFiles).starts_with("HTTP/1.1 ")); }

}  // namespace
}  // namespace dryfit::web
