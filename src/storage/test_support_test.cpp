#include <cerrno>
#include <cstdlib>

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "storage/pack.hpp"
#include "storage/test_support.hpp"
#include "storage/tree.hpp"
#include "sys/mount.hpp"

namespace gantry::storage::test {
namespace {

/// Mounts of tests stay in a namespace of their own.
class PrivateMounts : public testing::Environment {
 public:
  void SetUp() override {
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0) << "these tests need root";
    ASSERT_EQ(::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  }
};
const testing::Environment* const kPrivateMounts = testing::AddGlobalTestEnvironment(new PrivateMounts);

void describe_below(const sys::Path& root, const std::string& prefix, std::map<std::string, std::string>& all) {
  const sys::Fd directory = sys::open_file(root, O_RDONLY | O_DIRECTORY);
  for (const std::string& name : list_names(directory.get())) {
    const auto st = find_stat(directory.get(), name.c_str()).value();
    std::string text = fmt::format("{:o} {}:{} {}", st.st_mode, st.st_uid, st.st_gid, st.st_mtim.tv_sec);
    if (S_ISREG(st.st_mode)) text += " " + sys::read_file(root / name);
    if (S_ISLNK(st.st_mode)) text += " -> " + read_link(directory.get(), name.c_str());
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
      text += fmt::format(" {}:{}", ::major(st.st_rdev), ::minor(st.st_rdev));
    for (const sys::Xattr& attribute : sys::list_xattrs(directory.get(), name))
      text += fmt::format(" {}={}", attribute.name, attribute.value);
    all[prefix + name] = text;
    if (S_ISDIR(st.st_mode)) describe_below(root / name, prefix + name + "/", all);
  }
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  std::string name = "/tmp/gantry-storage-test-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) throw Error::from_errno(errno, "mkdtemp");
  ::chmod(name.c_str(), 0755);
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  sys::unmount_all(path_);
  sys::remove_tree(path_);
}

sys::Fd TemporaryDirectory::open() const { return sys::open_file(path_, O_RDONLY | O_DIRECTORY); }

TarBuilder& TarBuilder::entry(const TarEntry& entry, std::string_view content) {
  TarEntry sized = entry;
  sized.size = content.size();
  writer_.write_header(sized);
  writer_.write_data(content);
  writer_.end_data();
  return *this;
}

TarBuilder& TarBuilder::directory(const std::string& name, mode_t mode) {
  TarEntry e;
  e.type = TarType::directory;
  e.name = name + "/";
  e.mode = mode;
  e.mtime = {1000, 0};
  return entry(e);
}

TarBuilder& TarBuilder::file(const std::string& name, std::string_view content, mode_t mode) {
  TarEntry e;
  e.name = name;
  e.mode = mode;
  e.mtime = {1000, 0};
  return entry(e, content);
}

TarBuilder& TarBuilder::symlink(const std::string& name, const std::string& target) {
  TarEntry e;
  e.type = TarType::symlink;
  e.name = name;
  e.link = target;
  e.mode = 0777;
  e.mtime = {1000, 0};
  return entry(e);
}

TarBuilder& TarBuilder::hardlink(const std::string& name, const std::string& target) {
  TarEntry e;
  e.type = TarType::hardlink;
  e.name = name;
  e.link = target;
  return entry(e);
}

TarBuilder& TarBuilder::device(const std::string& name, unsigned major, unsigned minor) {
  TarEntry e;
  e.type = TarType::character_device;
  e.name = name;
  e.mode = 0600;
  e.device = makedev(major, minor);
  return entry(e);
}

TarBuilder& TarBuilder::pax(const std::vector<std::string>& records) {
  std::string text;
  for (const std::string& record : records) {
    const std::size_t rest = record.size() + 2;
    std::size_t length = rest + 1;
    while (std::to_string(length).size() + rest != length) length = std::to_string(length).size() + rest;
    text += fmt::format("{} {}\n", length, record);
  }
  TarBuilder header;
  header.file("x", text);
  std::string bytes = header.finish();
  bytes.resize(bytes.size() - 1024);
  bytes[156] = 'x';
  // The checksum changes by the difference of the type flags.
  unsigned sum = static_cast<unsigned>(std::strtoul(bytes.substr(148, 6).c_str(), nullptr, 8)) + ('x' - '0');
  bytes.replace(148, 6, fmt::format("{:06o}", sum));
  return raw(bytes);
}

TarBuilder& TarBuilder::raw(std::string_view bytes) {
  writer_.write_data(bytes);
  return *this;
}

std::string TarBuilder::finish() {
  writer_.finish();
  return bytes_;
}

std::string compress(Compression kind, const std::string& bytes) {
  if (kind == Compression::none) return bytes;
  struct archive* a = archive_write_new();
  archive_write_set_format_raw(a);
  switch (kind) {
    case Compression::gzip: archive_write_add_filter_gzip(a); break;
    case Compression::zstd: archive_write_add_filter_zstd(a); break;
    case Compression::xz: archive_write_add_filter_xz(a); break;
    case Compression::bzip2: archive_write_add_filter_bzip2(a); break;
    case Compression::none: break;
  }
  archive_write_set_bytes_in_last_block(a, 1);
  std::string out(bytes.size() + 65536, '\0');
  std::size_t used = 0;
  EXPECT_EQ(archive_write_open_memory(a, out.data(), out.size(), &used), ARCHIVE_OK);
  archive_entry* e = archive_entry_new();
  archive_entry_set_pathname(e, "data");
  archive_entry_set_filetype(e, AE_IFREG);
  EXPECT_EQ(archive_write_header(a, e), ARCHIVE_OK);
  EXPECT_EQ(archive_write_data(a, bytes.data(), bytes.size()), static_cast<la_ssize_t>(bytes.size()));
  archive_entry_free(e);
  EXPECT_EQ(archive_write_close(a), ARCHIVE_OK);
  archive_write_free(a);
  out.resize(used);
  return out;
}

UnpackResult unpack_bytes(const TemporaryDirectory& root, std::string tar, UnpackMode mode,
                          const UnpackBudget& budget) {
  UnpackOptions options;
  options.mode = mode;
  options.budget = budget;
  return unpack(root.open().get(), *make_string_source(std::move(tar)), options);
}

std::string pack_directory(const sys::Path& path, const PackOptions& options) {
  std::string out;
  const sys::Fd root = sys::open_file(path, O_RDONLY | O_DIRECTORY);
  pack(root.get(), options, [&](std::string_view bytes) { out += bytes; });
  return out;
}

std::map<std::string, std::string> describe_tree(const sys::Path& root) {
  std::map<std::string, std::string> all;
  describe_below(root, "", all);
  return all;
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.message();
  }
  ADD_FAILURE() << "no error was thrown";
  return "";
}

}  // namespace gantry::storage::test
