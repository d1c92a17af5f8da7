#include "volume/mount_spec.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.hpp"
#include "base/ids.hpp"

namespace gantry::volume {
namespace {

template <class F>
std::string error_of(F call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::invalid_argument) << e.message();
    return e.message();
  }
  return "";
}
std::string bind_error(std::string_view text) {
  return error_of([&] { (void)parse_bind(text); });
}
std::string mount_error(const MountRequest& request) {
  return error_of([&] { (void)parse_mount(request); });
}
MountRequest request_of(std::string type, std::string source, std::string target) {
  MountRequest request;
  request.type = std::move(type);
  request.source = std::move(source);
  request.target = std::move(target);
  return request;
}

TEST(CleanPath, IsGos) {
  EXPECT_EQ(clean_path("/a//b/./../c/"), "/a/c");
  EXPECT_EQ(clean_path("/../.."), "/");
  EXPECT_EQ(clean_path("a/../../b"), "../b");
  EXPECT_EQ(clean_path(""), ".");
}

TEST(Binds, HostPathIsABind) {
  const MountPoint m = parse_bind("/srv//data/:/data/:ro,rslave,z");
  EXPECT_EQ(m.type, MountType::bind);
  EXPECT_EQ(m.source, "/srv/data");
  EXPECT_EQ(m.destination, "/data");
  EXPECT_FALSE(m.rw);
  EXPECT_EQ(m.propagation, "rslave");
  EXPECT_EQ(m.mode, "ro,rslave,z");
  EXPECT_TRUE(m.create_source);
  EXPECT_EQ(parse_bind("/a:/b").propagation, "rprivate");
}

TEST(Binds, NameIsAVolumeAndNothingIsAnAnonymousOne) {
  const MountPoint named = parse_bind("data:/data:nocopy");
  EXPECT_EQ(named.type, MountType::volume);
  EXPECT_EQ(named.name, "data");
  EXPECT_FALSE(named.copy_data);
  EXPECT_FALSE(named.anonymous);
  EXPECT_EQ(named.mode, "nocopy");
  EXPECT_EQ(parse_bind("data:/data").mode, "z");
  EXPECT_TRUE(parse_bind("data:/data").copy_data);
  EXPECT_TRUE(parse_bind("data:/data").propagation.empty());
  const MountPoint anonymous = parse_bind("/data");
  EXPECT_TRUE(anonymous.anonymous);
  EXPECT_TRUE(anonymous.name.empty());
}

TEST(Binds, TextsAreDockers) {
  EXPECT_EQ(bind_error("a:b:c:d"), "invalid volume specification: 'a:b:c:d'");
  EXPECT_EQ(bind_error("/a:/b:ro:z:x"), "invalid volume specification: '/a:/b:ro:z:x'");
  EXPECT_EQ(bind_error("/a:ro"), "invalid volume specification: '/a:ro'");
  EXPECT_EQ(bind_error(""), "invalid volume specification: ''");
  EXPECT_EQ(bind_error(":/b"), "invalid volume specification: ':/b'");
  EXPECT_EQ(bind_error("/a:/b:bogus"), "invalid mode: bogus");
  EXPECT_EQ(bind_error("/a:/b:ro,rw"), "invalid mode: ro,rw");
  EXPECT_EQ(bind_error("/a:/b:z,Z"), "invalid mode: z,Z");
  EXPECT_EQ(bind_error("/tmp:/"),
            "invalid volume specification: '/tmp:/': invalid mount config for type \"bind\": invalid specification: "
            "destination can't be '/'");
  EXPECT_EQ(bind_error("/tmp:/a/../.."),
            "invalid volume specification: '/tmp:/a/../..': invalid mount config for type \"bind\": invalid "
            "specification: destination can't be '/'");
  EXPECT_EQ(bind_error("/tmp:a"),
            "invalid volume specification: '/tmp:a': invalid mount config for type \"bind\": invalid mount path: 'a' "
            "mount path must be absolute");
  EXPECT_NE(bind_error("/tmp:/a\nb"), "");
}

TEST(Mounts, TextsAreDockers) {
  EXPECT_EQ(mount_error(request_of("bogus", "", "/a")), "invalid mount config for type \"bogus\": mount type unknown");
  EXPECT_EQ(mount_error(request_of("bind", "", "/a")),
            "invalid mount config for type \"bind\": field Source must not be empty");
  EXPECT_EQ(mount_error(request_of("bind", "/x", "")),
            "invalid mount config for type \"bind\": field Target must not be empty");
  EXPECT_EQ(mount_error(request_of("tmpfs", "/x", "/a")),
            "invalid mount config for type \"tmpfs\": field Source must not be specified");
  EXPECT_EQ(mount_error(request_of("bind", "x", "/a")),
            "invalid mount config for type \"bind\": invalid mount path: 'x' mount path must be absolute");
  MountRequest extra = request_of("volume", "v", "/a");
  extra.bind.emplace();
  EXPECT_EQ(mount_error(extra), "invalid mount config for type \"volume\": field BindOptions must not be specified");
  MountRequest propagation = request_of("bind", "/x", "/a");
  propagation.bind.emplace().propagation = "bogus";
  EXPECT_EQ(mount_error(propagation), "invalid mount config for type \"bind\": invalid propagation mode: bogus");
  MountRequest conflict = request_of("bind", "/x", "/a");
  conflict.bind.emplace().read_only_non_recursive = true;
  EXPECT_NE(mount_error(conflict).find("mount options conflict"), std::string::npos);
  MountRequest anonymous = request_of("volume", "", "/a");
  anonymous.read_only = true;
  EXPECT_NE(mount_error(anonymous).find("must not set ReadOnly mode when using anonymous volumes"), std::string::npos);
  MountRequest subpath = request_of("volume", "v", "/a");
  subpath.volume.emplace().subpath = "../x";
  EXPECT_NE(mount_error(subpath), "");
  MountRequest size = request_of("tmpfs", "", "/a");
  size.tmpfs.emplace().size_bytes = -1;
  EXPECT_NE(mount_error(size), "");
}

TEST(Mounts, OptionsAreTaken) {
  MountRequest tmpfs = request_of("tmpfs", "", "/scratch");
  tmpfs.read_only = true;
  tmpfs.tmpfs = TmpfsRequest{1 << 20, 01777, {{"exec"}, {"uid", "5"}}};
  EXPECT_EQ(parse_mount(tmpfs).tmpfs_options,
            (std::vector<std::string>{"ro", "size=1048576", "mode=1777", "exec", "uid=5"}));
  MountRequest volume = request_of("volume", "v", "/data");
  volume.volume = VolumeRequest{true, {{"a", "b"}}, "local", {{"type", "tmpfs"}}, "sub/dir"};
  const MountPoint m = parse_mount(volume);
  EXPECT_FALSE(m.copy_data);
  EXPECT_EQ(m.labels.at("a"), "b");
  EXPECT_EQ(m.driver, "local");
  EXPECT_EQ(m.subpath, "sub/dir");
  MountRequest image = request_of("image", "busybox", "/img");
  EXPECT_FALSE(parse_mount(image).rw);
}

TEST(Tmpfs, OptionsAreKnown) {
  EXPECT_EQ(parse_tmpfs_options("size=64m,exec,mode=1770"),
            (std::vector<std::string>{"size=64m", "exec", "mode=1770"}));
  EXPECT_TRUE(parse_tmpfs_options("").empty());
  for (const char* bad : {"bogus", "size=-1", "size=x", "mode=999", "bind", "uid=a", "lowerdir=/etc"})
    EXPECT_NE(error_of([&] { (void)parse_tmpfs_options(bad); }), "") << bad;
  for (const char* destination : {"relative", "/", "/a/.."}) {
    MountInputs inputs;
    inputs.tmpfs[destination] = "";
    EXPECT_NE(error_of([&] { (void)resolve_mounts(inputs); }), "") << destination;
  }
}

TEST(VolumesFrom, IsTakenApart) {
  EXPECT_EQ(parse_volumes_from("web:ro").mode, "ro");
  EXPECT_EQ(parse_volumes_from("web").container, "web");
  EXPECT_NE(error_of([] { (void)parse_volumes_from(""); }), "");
  EXPECT_EQ(error_of([] { (void)parse_volumes_from("web:bogus"); }), "invalid mode: bogus");
  EXPECT_EQ(error_of([] { (void)parse_volumes_from("web:rshared"); }), "invalid mode: rshared");
  EXPECT_EQ(error_of([] { (void)parse_volumes_from("web:nocopy"); }), "invalid mode: nocopy");
}

TEST(ResolveMounts, ParentsComeBeforeChildren) {
  MountInputs inputs;
  inputs.binds = {"/s:/a/b/c", "v:/a", "/t:/z"};
  inputs.volumes = {"/a/b", "/a"};  // the second is taken by the bind
  const auto mounts = resolve_mounts(inputs);
  std::vector<std::string> order;
  for (const MountPoint& m : mounts) order.push_back(m.destination);
  EXPECT_EQ(order, (std::vector<std::string>{"/a", "/z", "/a/b", "/a/b/c"}));
  EXPECT_EQ(mounts[0].name, "v");
  EXPECT_TRUE(mounts[2].anonymous);
  EXPECT_EQ(mounts[2].origin, MountPoint::Origin::image_volume);
}

TEST(ResolveMounts, TheSameTargetTwiceIsAnError) {
  const auto error = [](MountInputs inputs) { return error_of([&] { (void)resolve_mounts(inputs); }); };
  MountInputs binds;
  binds.binds = {"/s:/a", "/t:/a/"};
  EXPECT_EQ(error(binds), "Duplicate mount point: /a");
  MountInputs mixed;
  mixed.binds = {"/s:/a"};
  mixed.mounts = {request_of("tmpfs", "", "/a")};
  EXPECT_EQ(error(mixed), "Duplicate mount point: /a");
  MountInputs tmpfs;
  tmpfs.binds = {"/s:/a"};
  tmpfs.tmpfs["/a"] = "";
  EXPECT_EQ(error(tmpfs), "Duplicate mount point: /a");
}

TEST(ResolveMounts, DonorsGiveWayToOwnMounts) {
  MountInputs inputs;
  MountInputs::Donor donor;
  donor.spec = parse_volumes_from("web:ro");
  donor.mounts = {parse_bind("one:/one"), parse_bind("/two:/two"), parse_bind("/three")};
  donor.mounts[2].name = "anonymous-name";
  inputs.volumes_from = {donor};
  inputs.binds = {"/own:/two"};
  const auto mounts = resolve_mounts(inputs);
  ASSERT_EQ(mounts.size(), 3u);
  EXPECT_EQ(mounts[0].destination, "/one");
  EXPECT_FALSE(mounts[0].rw);
  EXPECT_FALSE(mounts[0].copy_data);
  EXPECT_EQ(mounts[1].name, "anonymous-name");
  EXPECT_FALSE(mounts[1].anonymous);  // the donor removes it
  EXPECT_EQ(mounts[2].source, "/own");
  EXPECT_TRUE(mounts[2].rw);
}

TEST(BindSources, MustExistForMountsAndAreMadeForBinds) {
  const std::filesystem::path dir = "/tmp/gantry-sources-" + random_id().substr(0, 8);
  const auto strict = parse_mount(request_of("bind", dir / "x", "/a"));
  EXPECT_EQ(error_of([&] { check_bind_sources_blocking({strict}); }),
            "invalid mount config for type \"bind\": bind source path does not exist: " + (dir / "x").string());
  const auto lenient = parse_bind((dir / "x/y").string() + ":/a");
  EXPECT_NO_THROW(check_bind_sources_blocking({lenient}));
  create_bind_sources_blocking({lenient});
  EXPECT_TRUE(std::filesystem::is_directory(dir / "x/y"));
  EXPECT_NO_THROW(check_bind_sources_blocking({strict}));
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace gantry::volume
