// One door for machines: a request gives the bytes that the command line prints, touches nothing outside, and survives any text.
#include "api/call.hpp"

#include <dryfit/dryfit.hpp>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

namespace dryfit {
namespace {

using Json = nlohmann::json;

// What `dryfit WORDS` prints, with nothing outside.
std::string printed(std::vector<std::string_view> words, int* status = nullptr) {
  std::string out;
  cli::Env env = api::closed_env();
  env.out = [&](std::string_view text) { out += text; };
  const int s = cli::run(words, env);
  if (status != nullptr) *status = s;
  return out;
}

std::string error_code(const std::string& body) { return Json::parse(body)["error"]["code"].get<std::string>(); }

TEST(Call, GivesTheBytesOfTheCommandLine) {
  int status = -1;
  const std::string expected = printed({"check", "--depth", "26", "--device-batch-size", "32", "--gpu", "h100", "--gpus", "8", "--json"}, &status);
  ASSERT_EQ(status, 1);
  const Answer flags = call(R"({"command":"check","args":{"depth":26,"device_batch_size":"32","gpu":"h100","gpus":8,"fp8":false,"torch":null}})");
  EXPECT_EQ(flags.json, expected);
  EXPECT_EQ(flags.status, DRYFIT_DOES_NOT_FIT);
  EXPECT_FALSE(flags.fits());
  EXPECT_FALSE(flags.failed());
  EXPECT_EQ(call(R"({"argv":["check","--depth","26","--device-batch-size","32","--gpu","h100","--gpus",8]})").json, expected);
  EXPECT_EQ(call(R"({"argv":["check","--json","--depth","26","--device-batch-size","32","--gpu","h100","--gpus",8]})").json, expected);
}

TEST(Call, TakesAPastedCommandOperandsListsAndInput) {
  const std::string pasted = call(R"({"command":"check","args":{"gpu":"h100"},"paste":"torchrun --nproc_per_node=8 -m scripts.base_train --depth=8"})").json;
  EXPECT_EQ(pasted, printed({"check", "--gpu", "h100", "--json", "--", "torchrun --nproc_per_node=8 -m scripts.base_train --depth=8"}));
  EXPECT_EQ(pasted, call(R"({"command":"check","args":{"gpu":"h100"},"paste":["torchrun","--nproc_per_node=8","-m","scripts.base_train","--depth=8"]})").json);
  EXPECT_EQ(call(R"({"command":"table","args":{"gpu":["t4","h200"],"depths":[4,6]}})").json, printed({"table", "--gpu", "t4,h200", "--depths", "4,6", "--json"}));
  EXPECT_EQ(Json::parse(call(R"({"command":"list","operands":["gpus","4090"]})").json)["gpus"].size(), 3U);  // RTX 4090, its D, the laptop's
  const Answer doctor = call(R"({"command":"doctor","operands":["-"],"input":"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 8.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 3.42 GiB is free.\n"})");
  EXPECT_EQ(doctor.status, 0) << doctor.json;
  EXPECT_EQ(Json::parse(doctor.json)["finding"], "failure");
}

TEST(Call, GivesTheScreenOrThePictureWhereAsked) {
  EXPECT_EQ(call(R"({"command":"version","text":true})").json, printed({"version"}));
  EXPECT_TRUE(call(R"({"command":"explain","args":{"depth":4,"device-batch-size":4,"gpu":"h100","svg":"-"}})").json.starts_with("<svg"));
  EXPECT_TRUE(call(R"({"command":"check","args":{"gpu":"nope"},"text":true})").json.starts_with("error: "));
}

TEST(Call, RefusesWhatIsNoRequest) {
  for (const auto& [request, code] : {std::pair{"", "bad_json"}, {"{", "bad_json"}, {"\xff\xfe", "bad_json"}, {"[]", "bad_request"}, {"{}", "bad_request"}, {R"({"command":3})", "bad_request"}, {R"({"command":"--json"})", "bad_request"},
                                      {R"({"command":"check","argv":[]})", "bad_request"}, {R"({"command":"check","args":[]})", "bad_request"}, {R"({"command":"check","args":{"depth":{}}})", "bad_request"},
                                      {R"({"command":"check","args":{"--depth":4}})", "bad_request"}, {R"({"command":"check","args":{"a=b":4}})", "bad_request"}, {R"({"command":"check","operands":["--depth"]})", "bad_request"},
                                      {R"({"command":"check","text":1})", "bad_request"}, {R"({"command":"check","input":1})", "bad_request"}, {R"({"command":"check","flags":{}})", "bad_request"}, {R"({"argv":"check"})", "bad_request"},
                                      {R"({"command":"chekc"})", "unknown_command"}, {R"({"command":"check","args":{"dept":4}})", "unknown_flag"}, {R"({"command":"check","args":{"depth":true}})", "missing_value"},
                                      {R"({"command":"check","args":{"fp8":"yes"}})", "bad_value"}, {R"({"command":"check","args":{"depth":4.5}})", "bad_number"}, {R"({"command":"watch"})", "not_here"}, {R"({"command":"mcp"})", "not_here"}, {R"({"command":"doctor","args":{"live":true}})", "not_here"},
                                      {R"({"command":"calibrate","operands":["x"],"local":true})", "not_here"}, {R"({"command":"doctor","operands":["-"]})", "missing_input"}, {R"({"command":"doctor","operands":["-"],"local":true})", "missing_input"},
                                      {R"({"command":"doctor","operands":["/etc/passwd"]})", "unreadable_file"}, {R"({"command":"explain","args":{"depth":4,"device-batch-size":4,"gpu":"h100","svg":"/tmp/never.svg"}})", "unwritable_file"}}) {
    const Answer answer = call(request);
    EXPECT_EQ(answer.status, DRYFIT_BAD_INPUT) << request;
    ASSERT_TRUE(Json::accept(answer.json)) << request << answer.json;
    EXPECT_EQ(error_code(answer.json), code) << request << answer.json;
    EXPECT_FALSE(Json::parse(answer.json)["error"]["hint"].get<std::string>().empty()) << request;
  }
  int status = -1;
  char* none = dryfit_call(nullptr, 0, &status);
  EXPECT_EQ(status, DRYFIT_BAD_INPUT);
  dryfit_free(none);
  dryfit_free(dryfit_call("{}", 2, nullptr));
  dryfit_free(nullptr);
}

TEST(Call, LooksAtTheMachineOnlyWhereAllowed) {
  int looks = 0;
  cli::Env local = api::closed_env();
  local.probe = [&] {
    ++looks;
    return api::closed_env().probe();
  };
  local.variable = [&](const char*) {
    ++looks;
    return std::optional<std::string>();
  };
  const api::Reply closed = api::answer_json(R"({"command":"check","args":{"depth":4,"device-batch-size":4}})", local);
  EXPECT_EQ(looks, 0);
  EXPECT_EQ(Json::parse(closed.body)["machine"]["source"], "default");
  api::answer_json(R"({"command":"check","args":{"depth":4,"device-batch-size":4},"local":true})", local);
  EXPECT_GT(looks, 0);
}

TEST(Call, FromManyThreadsGivesTheSame) {
  const char* request = R"({"command":"check","args":{"depth":6,"device-batch-size":4,"gpu":"h100"}})";
  const std::string expected = call(request).json;
  std::vector<std::string> got(4);
  {
    std::vector<std::jthread> threads;
    for (std::string& one : got) threads.emplace_back([&one, request] { one = call(request).json; });
  }
  for (const std::string& one : got) EXPECT_EQ(one, expected);
}

RC_GTEST_PROP(CallProperties, AnyTextGivesJsonAndAStatus, (const std::string& text)) {
  const Answer answer = call(text);
  RC_ASSERT(Json::accept(answer.json));
  RC_ASSERT(answer.status == DRYFIT_BAD_INPUT || answer.status == DRYFIT_FITS || answer.status == DRYFIT_DOES_NOT_FIT);
}

RC_GTEST_PROP(CallProperties, AnyFlagsGiveTheBytesOfTheCommandLine, ()) {
  const auto depth = *rc::gen::inRange(-2, 13);
  const auto batch = *rc::gen::element(-1, 0, 1, 2, 3, 8);
  const std::string gpu = *rc::gen::element<std::string>("h100", "4090", "nope", "");
  const Json request = {{"command", "check"}, {"args", {{"depth", depth}, {"device-batch-size", batch}, {"gpu", gpu}}}};
  const std::string d = "--depth=" + std::to_string(depth), b = "--device-batch-size=" + std::to_string(batch), g = "--gpu=" + gpu;
  RC_ASSERT(call(request.dump()).json == printed({"check", d, b, g, "--json"}));
}

TEST(Version, IsTheCommandLines) { EXPECT_EQ(printed({"version"}), "dryfit " + std::string(version()) + "\n"); }

}  // namespace
}  // namespace dryfit
