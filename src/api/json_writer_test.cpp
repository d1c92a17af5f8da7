#include "api/json_writer.hpp"

#include <gtest/gtest.h>

namespace gantry::api {
namespace {

TEST(JsonWriter, PutsCommasWhereTheyBelong) {
  std::string text;
  JsonWriter json(text);
  json.begin_object().field("a", 1).key("b").begin_array().value("x").null().begin_object().end_object().end_array();
  json.field("c", true).key("d").begin_object().field("e", -5).end_object().end_object();
  EXPECT_EQ(text, R"({"a":1,"b":["x",null,{}],"c":true,"d":{"e":-5}})");
}

TEST(JsonWriter, EscapesWhatJsonDoesNotTake) {
  std::string text;
  append_json_string(text, "a\"b\\c\n\r\t\x01 <\u00e9\xff>");
  EXPECT_EQ(text, "\"a\\\"b\\\\c\\n\\r\\t\\u0001 <\u00e9\\ufffd>\"");
}

}  // namespace
}  // namespace gantry::api
