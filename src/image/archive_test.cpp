#include <random>

#include <gtest/gtest.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "image/test_support.hpp"
#include "json/json.hpp"
#include "sys/file.hpp"

namespace gantry::image {
namespace {

using test::ImageBytes;
using test::Machine;
using test::make_tar;
using test::TarFile;
using test::TemporaryDirectory;

std::string host_architecture() { return host_platform().architecture; }

std::vector<std::string> load(Machine& machine, std::string bytes, std::string* error = nullptr) {
  LoadRequest request;
  request.archive = storage::make_string_source(std::move(bytes));
  return machine.lines([&](ProgressPtr p) { return machine.transfers->load(request, p); }, error);
}

std::string save(Machine& machine, std::vector<std::string> names) {
  SaveRequest request;
  request.names = std::move(names);
  auto stream = machine.run(machine.transfers->save(request));
  auto drain = [](std::shared_ptr<storage::ByteChannel> channel) -> Task<std::string> {
    std::string out;
    for (;;) {
      std::string piece = co_await channel->next();
      if (piece.empty()) co_return out;
      out += piece;
    }
  };
  return machine.run(drain(stream));
}

std::string config_for(const std::vector<std::string>& tars) {
  ImageConfig config;
  config.platform = {"linux", host_architecture(), "", ""};
  for (const std::string& tar : tars) config.diff_ids.push_back(digest_of(tar));
  return render_image_config(config);
}

/// The layout of `docker save` up to version 24.
std::vector<TarFile> legacy_archive(const std::vector<std::string>& layers, const std::string& name) {
  std::vector<TarFile> files;
  json::Array paths;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const std::string path = std::to_string(i) + "/layer.tar";
    files.push_back({path, layers[i]});
    files.push_back({std::to_string(i) + "/VERSION", "1.0"});
    paths.push_back(json::Value(path));
  }
  files.push_back({"config.json", config_for(layers)});
  files.push_back(
      {"manifest.json", json::render(json::Array{json::Object{
                            {"Config", "config.json"}, {"RepoTags", json::Array{name}}, {"Layers", paths}}})});
  return files;
}

TEST(Load, ReadsTheLegacyLayoutPlainAndCompressed) {
  const std::vector<std::string> layers{make_tar({{"a", "1"}}), make_tar({{"b", "2"}})};
  const std::string archive = make_tar(legacy_archive(layers, "old:1"));
  for (const std::string& bytes : {archive, test::gzip(archive)}) {
    TemporaryDirectory root;
    Machine machine(root.path());
    EXPECT_EQ(load(machine, bytes), std::vector<std::string>{"{\"stream\":\"Loaded image: old:1\\n\"}\r\n"});
    const ImagePtr image = machine.images->get("old:1");
    EXPECT_EQ(machine.read_rootfs(*image, "a"), "1");
    EXPECT_EQ(machine.read_rootfs(*image, "b"), "2");
    EXPECT_EQ(machine.files_in(machine.paths.tmp()), 0u);
  }
}

TEST(Load, FollowsLayersThatAreLinksAndReadsCompressedOnes) {
  const std::string first = make_tar({{"a", "1"}}), second = make_tar({{"b", "2"}});
  std::vector<TarFile> files = legacy_archive({first, second, first}, "links:1");
  for (TarFile& file : files) {
    if (file.name == "1/layer.tar") file.content = test::gzip(second);
    if (file.name == "2/layer.tar") file = {"2/layer.tar", "", '2', "../0/layer.tar"};
  }
  TemporaryDirectory root;
  Machine machine(root.path());
  (void)load(machine, make_tar(files));
  const ImagePtr image = machine.images->get("links:1");
  EXPECT_EQ(image->layers.size(), 3u);
  EXPECT_EQ(machine.read_rootfs(*image, "b"), "2");
}

TEST(Load, ReadsWhatSkopeoWrites) {
  TemporaryDirectory files;
  const ImageBytes image = test::make_image({make_tar({{"a", "1"}}), make_tar({{"b", "2"}})}, host_architecture());
  test::write_layout(files.path() / "layout", image, "docker.io/library/sk:1");
  for (const std::string& kind : {std::string("docker-archive"), std::string("oci-archive")}) {
    const sys::Path archive = files.path() / kind;
    test::run_program({"skopeo", "copy", "-q", "oci:" + (files.path() / "layout").string() + ":docker.io/library/sk:1",
                       kind + ":" + archive.string() + ":docker.io/library/sk:1"});
    TemporaryDirectory root;
    Machine machine(root.path());
    EXPECT_EQ(load(machine, sys::read_file(archive)).back(), "{\"stream\":\"Loaded image: sk:1\\n\"}\r\n") << kind;
    const ImagePtr loaded = machine.images->get("sk:1");
    EXPECT_EQ(machine.read_rootfs(*loaded, "b"), "2");
    if (kind == "oci-archive") EXPECT_EQ(loaded->id, image.manifest.digest);
  }
}

TEST(Load, RefusesHostileArchivesAndLeavesNothing) {
  TemporaryDirectory root;
  Machine machine(root.path());
  const auto refusal = [&](std::vector<TarFile> files) {
    std::string error;
    (void)load(machine, make_tar(files), &error);
    EXPECT_FALSE(error.empty());
    (void)machine.run(machine.images->collect_garbage());
    EXPECT_EQ(machine.files_in(machine.paths.tmp()), 0u) << error;
    EXPECT_EQ(machine.files_in(machine.paths.blobs()), 0u) << error;
    EXPECT_TRUE(machine.images->list({}).empty());
    return error;
  };
  const std::string layer = make_tar({{"a", "1"}});
  EXPECT_EQ(refusal({{"x", "y"}}), "invalid archive: does not contain a manifest.json");
  EXPECT_NE(refusal({{"../x", "y"}}).find("leads out of it"), std::string::npos);
  EXPECT_NE(refusal({{"x", "", '2', "../../etc/passwd"}}).find("leads out of it"), std::string::npos);
  EXPECT_NE(refusal({{"manifest.json", "{"}}).find("invalid JSON"), std::string::npos);
  EXPECT_NE(refusal({{"manifest.json", R"([{"Config":"../../etc/passwd"}])"}}).find("leads out"), std::string::npos);
  EXPECT_NE(refusal({{"manifest.json", R"([{"Config":"c","Layers":[]}])"}, {"c", "", '2', "c"}}).find("not found"),
            std::string::npos);
  auto missing = legacy_archive({layer, layer}, "x:1");
  std::erase_if(missing, [](const TarFile& f) { return f.name == "1/layer.tar"; });
  EXPECT_NE(refusal(missing).find("1/layer.tar"), std::string::npos);
  auto swapped = legacy_archive({layer}, "x:1");
  swapped[0].content = make_tar({{"evil", "1"}});
  EXPECT_NE(refusal(swapped).find("invalid diffID for layer 0: expected"), std::string::npos);
  auto extra = legacy_archive({layer}, "x:1");
  extra.back().content = R"([{"Config":"config.json","RepoTags":["x:1"],"Layers":["0/layer.tar","0/layer.tar"]}])";
  EXPECT_EQ(refusal(extra), "invalid manifest, layers length mismatch: expected 1, got 2");
  const std::string index =
      R"({"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:)" +
      std::string(64, 'a') + R"(","size":5}]})";
  EXPECT_NE(refusal({{"oci-layout", "{}"}, {"index.json", index}}).find("not found in it"), std::string::npos);
  std::string error;
  (void)load(machine, "this is no archive at all, but it is long enough to look at", &error);
  EXPECT_FALSE(error.empty());
}

TEST(Save, WritesWhatLoadReadsAndSkopeoToo) {
  TemporaryDirectory root, other, files;
  Machine machine(root.path());
  (void)load(machine, make_tar(legacy_archive({make_tar({{"a", "1"}})}, "one:1")));
  (void)load(machine, make_tar(legacy_archive({make_tar({{"a", "2"}})}, "two:1")));
  machine.run(machine.images->tag("one:1", "one", "2"));
  const std::string archive = save(machine, {"one", "two:1"});
  Machine copy(other.path());
  const auto lines = load(copy, archive);
  EXPECT_EQ(lines.size(), 3u);
  for (const char* name : {"one:1", "one:2", "two:1"})
    EXPECT_EQ(copy.images->get(name)->id, machine.images->get(name)->id);
  sys::write_atomically(files.path() / "a.tar", save(machine, {"one:1"}), 0644, false);
  test::run_program({"skopeo", "copy", "-q", "docker-archive:" + (files.path() / "a.tar").string(),
                     "dir:" + (files.path() / "out").string()});
  const std::string by_id = save(machine, {machine.images->get("two:1")->id});
  TemporaryDirectory third;
  Machine bare(third.path());
  EXPECT_EQ(load(bare, by_id).back(),
            "{\"stream\":\"Loaded image ID: " + machine.images->get("two:1")->id + "\\n\"}\r\n");
  SaveRequest absent;
  absent.names = {"nope"};
  EXPECT_THROW((void)machine.run(machine.transfers->save(absent)), Error);
}

TEST(Import, MakesAnImageOfOneLayer) {
  TemporaryDirectory root;
  Machine machine(root.path());
  for (const bool compressed : {false, true}) {
    const std::string tar = make_tar({{"bin/", "", '5'}, {"bin/x", "x"}});
    ImportRequest request;
    request.archive = storage::make_string_source(compressed ? test::gzip(tar) : tar);
    request.repository = compressed ? "in" : "in:plain";
    request.changes = {"CMD [\"/bin/x\"]", "ENV A=1"};
    std::string id;
    auto verb = [](Machine* m, ImportRequest r, ProgressPtr p, std::string* out) -> Task<void> {
      *out = co_await m->transfers->import(std::move(r), std::move(p));
    };
    const auto lines = machine.lines([&](ProgressPtr p) { return verb(&machine, request, p, &id); });
    EXPECT_EQ(lines, std::vector<std::string>{"{\"status\":\"" + id + "\"}\r\n"});
    const ImagePtr image = machine.images->get(compressed ? "in:latest" : "in:plain");
    EXPECT_EQ(image->id, id);
    EXPECT_EQ(image->comment, "Imported from -");
    EXPECT_EQ(image->config.Cmd->front(), "/bin/x");
    EXPECT_EQ(machine.read_rootfs(*image, "bin/x"), "x");
    CommitRequest commit;
    commit.base = image;
    commit.config = *image;
    commit.layer = storage::make_string_source(make_tar({{"new", "n"}}));
    commit.names.push_back(parse_reference("committed:1"));
    const ImagePtr child = machine.run(machine.transfers->commit(commit));
    EXPECT_EQ(child->chain_ids.size(), 2u);
    EXPECT_EQ(machine.read_rootfs(*child, "new"), "n");
    EXPECT_EQ(machine.read_rootfs(*child, "bin/x"), "x");
  }
}

// ---- The index

struct Loaded {
  TemporaryDirectory root;
  std::unique_ptr<Machine> machine = std::make_unique<Machine>(root.path());
  ImagePtr add(const std::string& name, const std::string& content) {
    (void)load(*machine, make_tar(legacy_archive({make_tar({{"a", content}})}, name)));
    return machine->images->get(name);
  }
  std::vector<std::string> remove(const std::string& ref, bool force = false) {
    RemoveOptions options;
    options.force = force;
    std::vector<std::string> out;
    for (const Removed& r : machine->run(machine->images->remove(ref, options)))
      out.push_back(r.untagged.empty() ? "D " + r.deleted : "U " + r.untagged);
    return out;
  }
  std::string refusal(const std::string& ref, bool force = false) {
    try {
      (void)remove(ref, force);
    } catch (const Error& e) {
      return e.message();
    }
    return "removed";
  }
};

TEST(Images, AreFoundByNameDigestAndPrefix) {
  Loaded l;
  const ImagePtr image = l.add("team/app:1", "x");
  Images& images = *l.machine->images;
  const std::string hex = image->id.substr(7);
  for (const std::string& ref : std::initializer_list<std::string>{
           "team/app:1", "docker.io/team/app:1", image->id, hex, hex.substr(0, 12), hex.substr(0, 4),
           "sha256:" + hex.substr(0, 12), "team/app@" + image->id, image->config_digest})
    EXPECT_EQ(images.find(ref), image) << ref;
  EXPECT_EQ(images.find("team/app"), nullptr);
  EXPECT_EQ(images.find("other@" + image->id), nullptr);
  EXPECT_EQ(images.find(hex.substr(0, 3)), nullptr);
  try {
    (void)images.get("nope");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::not_found);
    EXPECT_EQ(e.message(), "No such image: nope:latest");
  }
  l.machine->run(images.tag("team/app:1", hex.substr(0, 12), "latest"));
  EXPECT_EQ(images.find(hex.substr(0, 12))->repo_tags.size(), 2u);  // the name wins, and is the same image
}

TEST(Images, TagChecksItsNames) {
  Loaded l;
  const ImagePtr image = l.add("app:1", "x");
  const auto refusal = [&](const std::string& repository, const std::string& tag) {
    try {
      l.machine->run(l.machine->images->tag("app:1", repository, tag));
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Errc::invalid_argument);
      return e.message();
    }
    return std::string("tagged");
  };
  EXPECT_EQ(refusal("sha256", "x"), "refusing to create an ambiguous tag using digest algorithm as name");
  EXPECT_EQ(refusal("x@" + image->id, ""), "cannot import digest reference");
  EXPECT_EQ(refusal("UP", ""), "invalid reference format: repository name (library/UP) must be lowercase");
  EXPECT_EQ(refusal("x", "-"), "invalid tag format");
  EXPECT_EQ(refusal("x", ""), "tagged");
  EXPECT_EQ(l.machine->images->get("x:latest")->id, image->id);
}

TEST(Images, ATagThatMovesLeavesTheOldImageDangling) {
  Loaded l;
  const ImagePtr old = l.add("app:1", "x");
  const ImagePtr fresh = l.add("app:1", "y");
  EXPECT_NE(old->id, fresh->id);
  ListOptions dangling;
  dangling.filters.add("dangling", "true");
  const auto found = l.machine->images->list(dangling);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].image->id, old->id);
  const PruneReport report = l.machine->run(l.machine->images->prune({}));
  ASSERT_EQ(report.removed.size(), 1u);
  EXPECT_EQ(report.removed[0].deleted, old->id);
  EXPECT_GT(report.space_reclaimed, 0);
  EXPECT_TRUE(l.machine->images->find("app:1"));
}

TEST(Images, RemovalUntagsThenDeletesAndFreesTheDisk) {
  Loaded l;
  const ImagePtr image = l.add("app:1", "x");
  l.machine->run(l.machine->images->tag("app:1", "app", "2"));
  EXPECT_EQ(l.remove("app:1"), std::vector<std::string>{"U app:1"});
  EXPECT_EQ(l.remove("app:2"), (std::vector<std::string>{"U app:2", "D " + image->id}));
  EXPECT_EQ(l.machine->files_in(l.machine->paths.blobs()), 0u);
  EXPECT_TRUE(l.machine->layers->list().empty());
  EXPECT_EQ(l.refusal("app:1"), "No such image: app:1");
  EXPECT_EQ(l.refusal(" "), "image name cannot be blank");
}

TEST(Images, RemovalOfWhatIsUsedConflictsWithDockersWords) {
  Loaded l;
  const ImagePtr image = l.add("app:1", "x");
  const std::string id = short_digest(image->id);
  l.machine->run(l.machine->images->tag("app:1", "other", "1"));
  EXPECT_EQ(l.refusal(image->id),
            "conflict: unable to delete " + id + " (must be forced) - image is referenced in multiple repositories");
  (void)l.remove("other:1");
  ImageUser user;
  user.container_id = std::string(64, 'c');
  user.image_id = image->id;
  user.top_chain = image->top_chain();
  l.machine->users = {user};
  const std::string container(12, 'c');
  EXPECT_EQ(l.refusal(image->id), "conflict: unable to delete " + id +
                                      " (must be forced) - image is being used by stopped container " + container);
  EXPECT_EQ(l.refusal("app:1"), "conflict: unable to delete app:1 (must be forced) - container " + container +
                                    " is using its referenced image " + id);
  l.machine->users[0].running = true;
  EXPECT_EQ(l.refusal(image->id, true), "conflict: unable to delete " + id +
                                            " (cannot be forced) - image is being used by running container " +
                                            container);
  EXPECT_EQ(l.remove("app:1", true), std::vector<std::string>{"U app:1"});
  Filters all;
  all.add("dangling", "false");
  EXPECT_TRUE(l.machine->run(l.machine->images->prune(all)).removed.empty());
  l.machine->users[0].running = false;
  EXPECT_EQ(l.remove(image->id, true), std::vector<std::string>{"D " + image->id});
  EXPECT_EQ(l.machine->layers->list().size(), 1u);  // the container still stands on it
  l.machine->users.clear();
  (void)l.machine->run(l.machine->images->collect_garbage());
  EXPECT_TRUE(l.machine->layers->list().empty());
}

TEST(Images, ListsHistoryAndUsageAnswerFromMemory) {
  Loaded l;
  (void)l.add("app:1", "x");
  (void)l.add("lib/app:2", "y");
  const auto names = [&](const std::string& key, const std::string& value) {
    ListOptions options;
    options.filters.add(key, value);
    std::vector<std::string> out;
    for (const auto& s : l.machine->images->list(options)) out.push_back(s.image->repo_tags.at(0));
    std::sort(out.begin(), out.end());
    return out;
  };
  EXPECT_EQ(names("reference", "app"), std::vector<std::string>{"app:1"});
  EXPECT_EQ(names("reference", "*/app:*"), std::vector<std::string>{"lib/app:2"});
  EXPECT_EQ(names("until", "1h").size(), 2u);  // their configs carry no time
  EXPECT_TRUE(names("label", "x").empty());
  EXPECT_THROW(names("bogus", "x"), Error);
  EXPECT_THROW(names("before", "nope"), Error);
  EXPECT_EQ(l.machine->images->history("app:1").at(0).tags, std::vector<std::string>{"app:1"});
  const Usage usage = l.machine->images->usage();
  EXPECT_EQ(usage.images, 2);
  EXPECT_EQ(usage.total_size, usage.reclaimable);
}

TEST(Images, DamagedContentIsReportedAndTheRestGoesOn) {
  Loaded l;
  const ImagePtr good = l.add("good:1", "x");
  const ImagePtr bad = l.add("bad:1", "y");
  sys::write_atomically(l.machine->content->path(bad->config_digest),
                        std::string(std::size_t(*l.machine->content->find_size(bad->config_digest)), 'x'));
  l.machine.reset();
  l.machine = std::make_unique<Machine>(l.root.path());
  ASSERT_EQ(l.machine->problems.size(), 1u);
  EXPECT_NE(l.machine->problems[0].text.find("damaged"), std::string::npos);
  EXPECT_TRUE(l.machine->images->get("good:1")->available);
  const ImagePtr broken = l.machine->images->get("bad:1");
  EXPECT_FALSE(broken->available);
  EXPECT_THROW(l.machine->run(l.machine->images->ensure_unpacked(broken)), Error);
  EXPECT_EQ(l.remove("bad:1").size(), 2u);
}

}  // namespace
}  // namespace gantry::image
