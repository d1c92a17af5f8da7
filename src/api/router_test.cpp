#include "api/router.hpp"

#include <gtest/gtest.h>

#include "api/http_error.hpp"
#include "base/error.hpp"

namespace gantry::api {
namespace {

Task<Response> unused(Request) { co_return Response::empty(); }

struct Table {
  Table() {
    router.add(Method::get, "/containers/json", unused);
    router.add(Method::delete_, "/containers/{name:.*}/checkpoints/{checkpoint}", unused);
    router.add(Method::get, "/containers/{name:.*}/json", unused);
    router.add(Method::delete_, "/containers/{name:.*}", unused);
    router.add(Method::get, "/images/{name:.*}/json", unused);
    router.add(Method::get, "/networks/{id}", unused);
    router.add(Method::post, "/volumes/prune", unused, {.min_api = {1, 25}});
  }
  Router router;
  Router::Decision decide(Method method, const std::string& target) { return router.decide(method, target); }
  /// "pattern name=value …", or the reply's status and body.
  std::string route(Method method, const std::string& target) {
    const Router::Decision d = router.decide(method, target);
    if (!d.match) return std::to_string(d.reply.status()) + " " + d.reply.body();
    std::string out(d.match->pattern);
    for (const auto& [key, value] : d.match->params) out += " " + key + "=" + value;
    return out;
  }
};

const std::string kNotFound = "404 {\"message\":\"page not found\"}\n";

TEST(Router, MatchesWithAndWithoutVersion) {
  Table t;
  EXPECT_EQ(t.route(Method::get, "/containers/json"), "/containers/json");
  EXPECT_EQ(t.route(Method::get, "/v1.41/containers/json?all=1"), "/containers/json");
  EXPECT_EQ(t.decide(Method::get, "/v1.41/containers/json").match->version, (ApiVersion{1, 41}));
  EXPECT_EQ(t.decide(Method::get, "/containers/json").match->version, kMaxApiVersion);
  EXPECT_EQ(t.route(Method::get, "http://localhost/v1.41/containers/json"), "/containers/json");
  EXPECT_EQ(t.route(Method::get, "/v1.41abc/containers/json"), kNotFound);
  EXPECT_EQ(t.route(Method::get, "/v1.41"), kNotFound);
  EXPECT_EQ(t.route(Method::put, "/containers/json"), kNotFound);
  EXPECT_EQ(t.route(Method::get, "*"), kNotFound);
}

TEST(Router, CapturesNamesWithSlashes) {
  Table t;
  EXPECT_EQ(t.route(Method::get, "/images/a/b:c/json"), "/images/{name:.*}/json name=a/b:c");
  EXPECT_EQ(t.route(Method::get, "/images/a%2Fb%3Ac/json"), "/images/{name:.*}/json name=a/b:c");
  EXPECT_EQ(t.route(Method::get, "/images/json/json/json"), "/images/{name:.*}/json name=json/json");
  EXPECT_EQ(t.route(Method::get, "/%63ontainers/%2Fweb/json"), "/containers/{name:.*}/json name=/web");
  EXPECT_EQ(t.route(Method::delete_, "/containers/a/checkpoints/b"),
            "/containers/{name:.*}/checkpoints/{checkpoint} name=a checkpoint=b");
  EXPECT_EQ(t.route(Method::delete_, "/containers/"), "/containers/{name:.*} name=");
  EXPECT_EQ(t.route(Method::get, "/networks/a/b"), kNotFound);
  EXPECT_EQ(t.route(Method::get, "/networks/"), kNotFound);
}

TEST(Router, RedirectsToTheCleanPath) {
  Table t;
  auto location = [&](const std::string& target) {
    const Router::Decision d = t.decide(Method::post, target);
    EXPECT_EQ(d.reply.status(), 301);
    return d.reply.headers().empty() ? "" : d.reply.headers().front().second;
  };
  EXPECT_EQ(location("//containers/json"), "/containers/json");
  EXPECT_EQ(location("/containers/../images/./x/?a=b%2F"), "/images/x/?a=b%2F");
  EXPECT_EQ(location("/a/%2e%2e/b"), "/b");
  EXPECT_EQ(location("/../../etc"), "/etc");
}

TEST(Router, RefusesVersionsThatItDoesNotServe) {
  Table t;
  EXPECT_EQ(t.route(Method::get, "/v1.99/containers/json"),
            "400 {\"message\":\"client version 1.99 is too new. Maximum supported API version is 1.56\"}\n");
  const Router::Decision old = t.decide(Method::get, "/v1.9/containers/json");
  EXPECT_EQ(old.reply.content_type(), "text/plain; charset=utf-8");
  EXPECT_FALSE(old.experimental_header);
  EXPECT_EQ(
      old.reply.body(),
      "client version 1.9 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer "
      "version\n");
  EXPECT_EQ(t.route(Method::get, "/v1.99/nope"), kNotFound);
  EXPECT_EQ(t.route(Method::get, "/v99999999999/containers/json").substr(0, 3), "400");
  EXPECT_EQ(t.route(Method::post, "/v1.24/volumes/prune"),
            "400 {\"message\":\"POST /volumes/prune requires minimum API version 1.25\"}\n");
  EXPECT_EQ(t.route(Method::post, "/v1.25/volumes/prune"), "/volumes/prune");
  t.router.set_min_version({1, 40});
  EXPECT_EQ(t.route(Method::get, "/v1.39/containers/json"),
            "400 {\"message\":\"client version 1.39 is too old. Minimum supported API version is 1.40, please upgrade "
            "your client to a newer version\"}\n");
}

TEST(Router, RefusesBrokenEscapes) {
  Table t;
  EXPECT_EQ(t.route(Method::get, "/images/%zz/json").substr(0, 3), "400");
  EXPECT_EQ(t.route(Method::get, "/images/%00/json").substr(0, 3), "400");
  EXPECT_EQ(t.route(Method::get, "/images/%4").substr(0, 3), "400");
}

TEST(Query, ReadsParametersAsGoDoes) {
  const Query q = Query::parse("a=1&b=x%20y+z&a=2&empty=&flag&off=False&n=12&bad=1x");
  EXPECT_EQ(q.get("a"), "1");
  EXPECT_EQ(q.all("a"), (std::vector<std::string>{"1", "2"}));
  EXPECT_EQ(q.get("b"), "x y z");
  EXPECT_FALSE(q.flag("flag"));
  EXPECT_FALSE(q.flag("off", true));
  EXPECT_TRUE(q.flag("absent", true));
  EXPECT_TRUE(q.flag("b"));
  EXPECT_EQ(q.integer("n"), 12);
  EXPECT_EQ(q.integer("empty"), std::nullopt);
  EXPECT_THROW((void)q.integer("bad"), Error);
  EXPECT_THROW(Query::parse("a=%zz"), Error);
  EXPECT_THROW(Query::parse("a=1;b=2"), Error);
}

Filters filters_of(const std::string& json) {
  std::string encoded;
  for (const char c : json) encoded += c == '"' ? "%22" : std::string(1, c);
  return Query::parse("filters=" + encoded).filters();
}

TEST(Query, ReadsFiltersOfBothForms) {
  const std::set<std::string> labels{"a=b", "c"};
  EXPECT_EQ(filters_of(R"({"label":["a=b","c"]})").values("label"), labels);
  EXPECT_EQ(filters_of(R"({"label":{"a=b":true,"c":true}})").values("label"), labels);
  EXPECT_TRUE(filters_of("").empty());
  for (const char* bad : {"[]", "{\"a\":1}", "{\"a\":[1]}", "{\"a\":{\"b\":1}}", "{", "\"x\""}) {
    try {
      (void)filters_of(bad);
      ADD_FAILURE() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.message(), "invalid filter");
    }
  }
}

TEST(HttpError, MapsEveryKind) {
  EXPECT_EQ(http_status(Errc::not_found), 404);
  EXPECT_EQ(http_status(Errc::conflict), 409);
  EXPECT_EQ(http_status(Errc::timed_out), 500);
  EXPECT_EQ(error_response(Error(Errc::not_modified, "same")).body(), "");
  EXPECT_EQ(error_response(Error(Errc::internal, "bad \xff byte")).body(), "{\"message\":\"bad ? byte\"}\n");
}

}  // namespace
}  // namespace gantry::api
