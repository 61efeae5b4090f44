// YAML as PyYAML's safe_load reads it (yaml_answers.json, made by make_yaml_answers.py), and texts made to do harm.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "workload/probe_document.hpp"

namespace dryfit {
namespace {

using Kind = Document::Kind;

// What JSON cannot say: {"real": "inf"}.
bool same(const Document& got, const Document& want) {
  if (const Document* word = want.find("real"); word != nullptr && want.fields.size() == 1 && word->kind == Kind::text) {
    if (got.kind != Kind::real) return false;
    return word->text == "nan" ? std::isnan(got.real) : std::isinf(got.real) && (got.real > 0) == (word->text == "inf");
  }
  if (got.kind != want.kind || got.flag != want.flag || got.whole != want.whole || got.text != want.text || got.items.size() != want.items.size() || got.fields.size() != want.fields.size()) return false;
  if (want.kind == Kind::real && std::abs(got.real - want.real) > 1e-15 * std::abs(want.real)) return false;
  for (std::size_t i = 0; i < got.items.size(); ++i) {
    if (!same(got.items[i], want.items[i])) return false;
  }
  for (const auto& [key, value] : want.fields) {
    const auto it = std::ranges::find(got.fields, key, &Document::Field::first);
    if (it == got.fields.end() || !same(it->second, value)) return false;
  }
  return true;
}

Error error_of(std::string_view text) {
  const auto d = document_from_yaml(text, "a.yaml");
  return d ? Error{"none", shown(*d), "", ""} : d.error();
}

TEST(Yaml, saysWhatPyYamlSays) {
  std::ifstream file(DRYFIT_SOURCE_DIR "/tests/workload/yaml_answers.json");
  std::stringstream text;
  text << file.rdbuf();
  const auto answers = document_from_json(text.str(), "yaml_answers.json");
  ASSERT_TRUE(answers) << answers.error().message;
  ASSERT_GT(answers->items.size(), 1500u);
  for (const Document& one : answers->items) {
    const std::string& yaml = one.find("yaml")->text;
    const auto got = document_from_yaml(yaml, "a.yaml");
    if (one.find("error") != nullptr) {
      EXPECT_FALSE(got) << yaml << " is " << (got ? shown(*got) : "") << ", and PyYAML refuses it";
      continue;
    }
    const auto want = std::ranges::find(one.fields, std::string("answer"), &Document::Field::first);
    ASSERT_TRUE(got) << yaml << ": " << got.error().message << " at " << got.error().where;
    EXPECT_TRUE(same(*got, want->second)) << yaml << ": " << shown(got->fields.empty() ? *got : got->fields[0].second) << " and not " << shown(want->second.fields.empty() ? want->second : want->second.fields[0].second);
  }
}

TEST(Yaml, keysAndDatesAreTextAsWritten) {
  const auto d = document_from_yaml("1: a\nyes: b\n~: c\nwhen: 2026-11-26\n", "a.yaml");
  ASSERT_TRUE(d) << d.error().message;
  for (const char* key : {"1", "yes", "~", "when"}) ASSERT_NE(d->find(key), nullptr) << key;
  EXPECT_EQ(d->find("when")->text, "2026-11-26");
}

TEST(Yaml, errorsHaveLineColumnAndHint) {
  struct Case { const char* text; const char* code; const char* where; };
  for (const Case& c : {Case{"a: 1\nb:\n\tc: 2\n", "bad_yaml", "a.yaml:3:1"}, Case{"a: 1\na: 2\n", "bad_yaml", "a.yaml:2:1"}, Case{"a: [1\nb: 2\n", "bad_yaml", "a.yaml:2:2"}, Case{"a: 1\nb: \xff\n", "bad_yaml", "a.yaml:2:4"},
                        Case{"a: *x\n", "bad_yaml", "a.yaml:1:4"}, Case{"a: &x [*x]\n", "bad_yaml", "a.yaml:1:8"}, Case{"a: !!python/object:os.x 1\n", "bad_yaml", "a.yaml:1:4"}, Case{"a: 1\n---\nb: 2\n", "bad_yaml", "a.yaml:2:1"},
                        Case{"? [a]\n: 1\n", "bad_yaml", "a.yaml:1:3"}, Case{"a: &x k\n*x : 1\n", "bad_yaml", "a.yaml:2:1"}, Case{"<<: [1]\n", "bad_yaml", "a.yaml:1:7"}, Case{"", "bad_yaml", "a.yaml"}, Case{"# nothing\n", "bad_yaml", "a.yaml"}}) {
    const Error e = error_of(c.text);
    EXPECT_EQ(e.code, c.code) << c.text;
    EXPECT_EQ(e.where, c.where) << c.text << e.message;
    EXPECT_FALSE(e.hint.empty()) << c.text;
  }
}

TEST(Yaml, aliasesCountAsTheyAreWrittenOut) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string last = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int n = 0; n < 10; ++n) bomb += (n == 0 ? "" : ", ") + last;
    bomb += "]\n";
  }
  EXPECT_EQ(error_of(bomb).code, "too_large");
  std::string heavy = "a: &a " + std::string(200'000, 'x') + "\nb: [*a";
  for (int i = 0; i < 100; ++i) heavy += ", *a";
  EXPECT_EQ(error_of(heavy + "]\n").code, "too_large");
  std::string merges = "a0: &a0 {";
  for (int i = 0; i < 2000; ++i) merges += "k" + std::to_string(i) + ": 1, ";
  merges += "z: 1}\nb: {<<: [";
  for (int i = 0; i < 2000; ++i) merges += "*a0, ";
  EXPECT_EQ(error_of(merges + "]}\n").code, "too_large");
}

TEST(Yaml, depthAndSizeAreBounded) {
  EXPECT_EQ(error_of(std::string(65, '[') + std::string(65, ']')).code, "too_large");
  EXPECT_TRUE(document_from_yaml(std::string(64, '[') + std::string(64, ']'), "a.yaml"));
  EXPECT_NE(error_of(std::string(100'000, '[')).code, "none");
  EXPECT_EQ(error_of(std::string(2 << 20, 'x')).code, "too_large");
  std::string chain = "a0: &a0 [1]\n";  // each one level deeper than the last
  for (int i = 1; i < 80; ++i) chain += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a" + std::to_string(i - 1) + "]\n";
  EXPECT_EQ(error_of(chain).code, "too_large");
  std::string directives;
  for (int i = 0; i < 70; ++i) directives += "%TAG !a" + std::to_string(i) + "! b\n";
  EXPECT_EQ(error_of(directives + "---\na: 1\n").code, "too_large");
  std::string wide;
  for (int i = 0; i < 5000; ++i) wide += "k" + std::to_string(i) + ": 1\n";
  EXPECT_EQ(error_of(wide).code, "too_large");
}

}  // namespace
}  // namespace dryfit
