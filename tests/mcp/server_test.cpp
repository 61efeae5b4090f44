// The protocol line by line: what is answered, what is not, and with which error. The official clients are tests/cli/mcp_test.py.
#include "mcp/server.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <nlohmann/json.hpp>

#include "api/call.hpp"

namespace dryfit::mcp {
namespace {

using Json = nlohmann::json;

std::optional<Json> said(std::string_view line, Session& session) {
  const auto reply = handle(line, session, api::closed_env());
  if (!reply) return std::nullopt;
  EXPECT_TRUE(reply->ends_with('\n'));
  EXPECT_EQ(reply->find('\n'), reply->size() - 1) << "a message is one line";
  return Json::parse(*reply);
}
Json ask(std::string_view line) {
  Session session;
  return said(line, session).value();
}
int error_of(std::string_view line) { return ask(line)["error"]["code"].get<int>(); }

TEST(Handshake, AnswersWithTheClientsRevisionOrOurNewest) {
  for (const auto& [wanted, given] : {std::pair{"2024-11-05", "2024-11-05"}, {"2025-03-26", "2025-03-26"}, {"2025-06-18", "2025-06-18"}, {"2025-11-25", "2025-11-25"}, {"2026-07-28", "2025-11-25"}, {"1999-01-01", "2025-11-25"}}) {
    const Json reply = ask(R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{},"clientInfo":{"name":"x","version":"1"},"protocolVersion":")" + std::string(wanted) + "\"}}");
    EXPECT_EQ(reply["result"]["protocolVersion"], given);
    EXPECT_EQ(reply["result"]["serverInfo"]["name"], "dryfit");
    EXPECT_TRUE(reply["result"]["capabilities"].contains("tools"));
  }
  EXPECT_EQ(error_of(R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":3}})"), -32602);
}

TEST(Stateless, EveryRequestNamesItsRevision) {
  const Json found = ask(R"({"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}})")["result"];
  EXPECT_EQ(found["resultType"], "complete");
  EXPECT_EQ(found["supportedVersions"][0], "2026-07-28");
  EXPECT_TRUE(found["ttlMs"].is_number_integer());
  const Json unknown = ask(R"({"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2099-01-01"}}})")["error"];
  EXPECT_EQ(unknown["code"], -32022);
  EXPECT_EQ(unknown["data"]["requested"], "2099-01-01");
  EXPECT_FALSE(ask(R"({"jsonrpc":"2.0","id":1,"method":"tools/list"})")["result"].contains("resultType"));
}

TEST(Messages, AreAnsweredByTheirId) {
  EXPECT_EQ(ask(R"({"jsonrpc":"2.0","id":"a b","method":"ping"})"), Json::parse(R"({"jsonrpc":"2.0","id":"a b","result":{}})"));
  EXPECT_EQ(ask(R"({"jsonrpc":"2.0","id":0,"method":"ping"})")["id"], 0);
  EXPECT_EQ(ask(R"({"jsonrpc":"2.0","id":-9007199254740993,"method":"ping"})")["id"], -9007199254740993);
  for (const char* id : {"null", "1.5", "true", "[]", "{}"}) {
    const Json reply = ask(R"({"jsonrpc":"2.0","method":"ping","id":)" + std::string(id) + "}");
    EXPECT_EQ(reply["error"]["code"], -32600) << id;
    EXPECT_TRUE(reply["id"].is_null());
  }
}

TEST(Messages, ThatAskNothingGetNothing) {
  Session session;
  for (const char* line : {"", "  \r", R"({"jsonrpc":"2.0","method":"notifications/initialized"})", R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}})", R"({"jsonrpc":"2.0","method":"no/such"})",
                           R"({"jsonrpc":"2.0","id":1,"result":{}})", R"({"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}})"}) {
    EXPECT_FALSE(said(line, session).has_value()) << line;
  }
}

TEST(Messages, ThatAreWrongGetTheErrorOfTheProtocol) {
  EXPECT_EQ(error_of("{"), -32700);
  EXPECT_EQ(error_of("\xff"), -32700);
  EXPECT_EQ(error_of(std::string(200000, '[')), -32700);
  EXPECT_EQ(error_of("3"), -32600);
  EXPECT_EQ(error_of("[]"), -32600);
  EXPECT_EQ(error_of(R"({"id":1,"method":"ping"})"), -32600);
  EXPECT_EQ(error_of(R"({"jsonrpc":"1.0","id":1,"method":"ping"})"), -32600);
  EXPECT_EQ(error_of(R"({"jsonrpc":"2.0","id":1,"method":7})"), -32600);
  EXPECT_EQ(error_of(R"({"jsonrpc":"2.0","id":1})"), -32600);
  EXPECT_EQ(error_of(R"({"jsonrpc":"2.0","id":1,"method":"resources/list"})"), -32601);
  EXPECT_EQ(error_of(R"({"jsonrpc":"2.0","id":1,"method":"ping","params":[1]})"), -32602);
  EXPECT_EQ(error_of(R"({"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"x"}})"), -32602);
  EXPECT_EQ(error_of(R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}})"), -32602);
  EXPECT_EQ(error_of(R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"rm"}})"), -32602);
  EXPECT_EQ(error_of(R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"dryfit_check","arguments":[]}})"), -32602);
}

TEST(Batches, BelongToTheRevisionsThatHaveThem) {
  const char* batch = R"([{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/initialized"},5,{"jsonrpc":"2.0","id":"z","method":"ping"}])";
  for (const auto& [version, answered] : {std::pair{"2025-03-26", true}, {"2025-06-18", false}, {"", false}}) {
    Session session{version};
    const Json reply = said(batch, session).value();
    EXPECT_EQ(reply.is_array(), answered) << version;
    if (answered) {
      ASSERT_EQ(reply.size(), 3U);
      EXPECT_EQ(reply[1]["error"]["code"], -32600);
      EXPECT_EQ(reply[2]["id"], "z");
    }
  }
  Session session{"2025-03-26"};
  EXPECT_FALSE(said(R"([{"jsonrpc":"2.0","method":"notifications/initialized"}])", session).has_value());
}

TEST(Tools, AnswerWithTheBytesOfTheCommandLine) {
  const Json result = ask(R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"dryfit_check","arguments":{"depth":26,"device_batch_size":32,"gpu":"h100","gpus":8}}})")["result"];
  const api::Reply same = api::answer_json(R"({"command":"check","args":{"depth":26,"device-batch-size":32,"gpu":"h100","gpus":8}})", api::closed_env());
  EXPECT_EQ(result["content"][0]["text"], same.body);
  EXPECT_EQ(result["structuredContent"], Json::parse(same.body));
  EXPECT_EQ(result["isError"], false) << "not fitting is an answer";
  EXPECT_EQ(result["structuredContent"]["verdict"], "wont_fit");
}

TEST(Tools, SayWhatIsWrongAsAResult) {
  const auto call = [](const std::string& tool, const std::string& arguments) { return ask(R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":")" + tool + R"(","arguments":)" + arguments + "}}")["result"]; };
  for (const auto& [tool, arguments, code] : {std::tuple{"dryfit_check", R"({"gpu":"h10O"})", "unknown_gpu"}, {"dryfit_check", R"({"dept":3})", "unknown_flag"}, {"dryfit_explain", R"({"svg":"/tmp/x"})", "bad_argument"}, {"dryfit_check", R"({"depth":[{}]})", "bad_request"},
                                              {"dryfit_doctor", "{}", "missing_file"}, {"dryfit_doctor", R"({"text":"x","file":"y"})", "bad_argument"}, {"dryfit_doctor", R"({"file":"-"})", "bad_argument"}, {"dryfit_plan", R"({"command":"ls","gpu":"h100"})", "no_training_module"}}) {
    const Json result = call(tool, arguments);
    EXPECT_EQ(result["isError"], true) << tool << arguments;
    EXPECT_FALSE(result.contains("structuredContent"));
    const Json error = Json::parse(result["content"][0]["text"].get<std::string>())["error"];
    if (std::string_view(code) != "no_training_module") EXPECT_EQ(error["code"], code) << arguments;
    EXPECT_FALSE(error["hint"].get<std::string>().empty());
  }
}

TEST(Tools, ListEveryFlagOfTheirCommand) {
  const Json tools = ask(R"({"jsonrpc":"2.0","id":1,"method":"tools/list"})")["result"]["tools"];
  ASSERT_EQ(tools.size(), 5U);
  for (const Json& tool : tools) {
    EXPECT_EQ(tool["annotations"]["readOnlyHint"], true);
    EXPECT_EQ(tool["outputSchema"]["type"], "object");
    const std::string command = tool["name"].get<std::string>().substr(7);
    for (const cli::FlagSpec& flag : cli::flags_of(*cli::find_command(command))) {
      std::string name(flag.name);
      std::ranges::replace(name, '-', '_');
      const bool left_out = name == "json" || name == "color" || name == "ascii" || name == "quiet" || name == "verbose" || name == "help" || name == "csv" || name == "svg";
      EXPECT_EQ(tool["inputSchema"]["properties"].contains(name), !left_out) << command << " " << name;
    }
  }
}

RC_GTEST_PROP(LinesProperties, DoNotDependOnHowTheyArrive, (const std::vector<std::string>& pieces)) {
  std::string whole;
  for (const std::string& piece : pieces) whole += piece + (piece.size() % 3 == 0 ? "\n" : "");
  const auto collect = [](const std::vector<std::string>& chunks) {
    std::vector<std::string> out;
    Lines lines;
    const auto sink = [&](const Lines::Line& line) { out.push_back(line.text); };
    for (const std::string& chunk : chunks) lines.feed(chunk, sink);
    lines.finish(sink);
    return out;
  };
  std::vector<std::string> letters;
  for (char c : whole) letters.emplace_back(1, c);
  RC_ASSERT(collect({whole}) == collect(letters));
}

TEST(Lines, TooLongAreSkippedAndTheNextIsRead) {
  std::vector<std::pair<std::size_t, bool>> got;
  Lines lines;
  const auto sink = [&](const Lines::Line& line) { got.emplace_back(line.text.size(), line.too_long); };
  const std::string piece(1 << 20, 'x');
  for (int i = 0; i < 20; ++i) lines.feed(piece, sink);
  lines.feed("\nok\n", sink);
  EXPECT_EQ(got, (std::vector<std::pair<std::size_t, bool>>{{0, true}, {2, false}}));
}

RC_GTEST_PROP(HandleProperties, SurvivesAnyLine, (const std::string& line)) {
  Session session{*rc::gen::element<std::string>("", "2025-03-26")};
  const auto reply = handle(line, session, api::closed_env());
  if (reply) RC_ASSERT(Json::accept(*reply));
}

}  // namespace
}  // namespace dryfit::mcp
