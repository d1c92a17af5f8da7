#include <algorithm>
#include <cerrno>
#include <utility>

#include <curl/curl.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <boost/describe.hpp>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "base/text.hpp"
#include "buildcache/snapshots.hpp"
#include "buildops/http_fetch.hpp"
#include "buildops/source_op.hpp"
#include "json/codec.hpp"
#include "session/sessions.hpp"
#include "storage/file_content.hpp"
#include "storage/hash.hpp"
#include "sys/file.hpp"

namespace gantry::buildops {
namespace {

constexpr std::string_view kUploadPrefix = "http://buildkit-session/";
constexpr std::size_t kNotesLimit = 64 << 10;
constexpr std::size_t kMostNotes = 4096;

/// What is known of a URL since it was last fetched.
struct UrlNotes {
  std::string ETag;
  std::string LastModified;
  std::string Digest;
  std::string FileName;
};
BOOST_DESCRIBE_STRUCT(UrlNotes, (), (ETag, LastModified, Digest, FileName))

/// A downloaded file that has no name: it goes with the descriptor.
struct Download {
  sys::Fd file;
  UrlNotes notes;
};

void validate_checksum(const std::string& checksum) {
  const auto [algorithm, digits] = split_once(checksum, ':');
  if (digits.empty() || !is_lower_hex(digits)) throw Error(Errc::invalid_argument, "invalid checksum digest format");
  if (algorithm != "sha256") throw Error(Errc::invalid_argument, "unsupported digest algorithm");
  if (!storage::is_sha256_digest(checksum)) throw Error(Errc::invalid_argument, "invalid checksum digest length");
}

std::uint32_t number_attribute(const pb::SourceOp& source, const std::string& name, std::uint32_t otherwise, int base) {
  const std::string text = source_attribute(source, name);
  if (text.empty()) return otherwise;
  std::size_t used = 0;
  unsigned long value = 0;
  try {
    value = std::stoul(text, &used, base);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used != text.size() || value > 0x7fffffff)
    throw Error(Errc::invalid_argument, fmt::format("invalid {}: {}", name, quote(text)));
  return static_cast<std::uint32_t>(value);
}

/// A name for a file: nothing that leads elsewhere.
std::string safe_name(std::string name) {
  const std::size_t slash = name.rfind('/');
  if (slash != std::string::npos) name.erase(0, slash + 1);
  if (name.empty() || name == "." || name == ".." || name.size() > 255 || name.find('\0') != std::string::npos)
    return "download";
  return name;
}

std::string name_from_url(const std::string& url) {
  std::string path = url.substr(0, url.find_first_of("?#"));
  const std::size_t host = path.find("://");
  path = host == std::string::npos ? path : path.substr(host + 3);
  const std::size_t slash = path.find('/');
  return safe_name(slash == std::string::npos ? std::string() : path.substr(slash + 1));
}

std::int64_t parse_http_date(const std::string& text) {
  const time_t time = text.empty() ? -1 : curl_getdate(text.c_str(), nullptr);
  return time < 0 ? 0 : static_cast<std::int64_t>(time);
}

class HttpSource final : public solver::Operation {
 public:
  HttpSource(const Services& services, const llb::Vertex& vertex)
      : services_(services), url_(vertex.op().source().identifier()) {
    const pb::SourceOp& source = vertex.op().source();
    checksum_ = source_attribute(source, "http.checksum");
    if (!checksum_.empty()) validate_checksum(checksum_);
    if (const std::string name = source_attribute(source, "http.filename"); !name.empty()) file_name_ = safe_name(name);
    mode_ = number_attribute(source, "http.perm", 0600, 8) & 07777;
    uid_ = number_attribute(source, "http.uid", 0, 10);
    gid_ = number_attribute(source, "http.gid", 0, 10);
    session_ = source_attribute(source, "http.session");
    for (const auto& [name, value] : source.attrs())
      if (name.starts_with("http.header.")) headers_.push_back(fmt::format("{}: {}", name.substr(12), value));
    std::sort(headers_.begin(), headers_.end());
    auth_secret_ = source_attribute(source, "http.authheadersecret");
  }
  bool is_work() const override { return false; }

  solver::CacheMap cache_map(solver::OpContext& context) override {
    if (checksum_.empty()) resolve(context);
    const std::string& digest = checksum_.empty() ? notes_.Digest : checksum_;
    solver::CacheMap map;
    map.key = fmt::format("http.v1\n{}\n{}\n{:o}\n{}\n{}\n{}", digest, name(), mode_, uid_, gid_, notes_.LastModified);
    return map;
  }

  std::vector<buildcache::SnapshotPtr> execute(solver::OpContext& context,
                                               const std::vector<buildcache::SnapshotPtr>&) override {
    if (!download_.file) download(context);
    const std::string& expected = checksum_.empty() ? notes_.Digest : checksum_;
    if (!expected.empty() && download_.notes.Digest != expected)
      throw Error(Errc::corrupted, fmt::format("digest mismatch {}: {}", download_.notes.Digest, expected));
    notes_ = download_.notes;
    auto work = services_.snapshots.create(nullptr, buildcache::RecordType::regular, "http url " + url_);
    write_file(sys::open_file(work->mount(), O_RDONLY | O_DIRECTORY));
    download_.file.reset();
    return {work->commit()};
  }

 private:
  bool is_upload() const { return url_.starts_with(kUploadPrefix); }
  std::string name() const {
    if (!file_name_.empty()) return file_name_;
    return notes_.FileName.empty() ? name_from_url(url_) : notes_.FileName;
  }

  /// Learns the digest of the content, asking the server whether the known one still holds.
  void resolve(solver::OpContext& context) {
    if (!is_upload()) {
      if (const auto text = sys::find_file(notes_file(), kNotesLimit); text && read_notes(*text)) {
        HttpRequest request = make_request(context);
        request.head_only = true;
        request.headers.push_back(notes_.ETag.empty() ? "If-Modified-Since: " + notes_.LastModified
                                                      : "If-None-Match: " + notes_.ETag);
        const HttpReply reply = fetch_http(request, {}, context.stop);
        const auto etag = reply.headers.find("etag");
        if (reply.status == 304 ||
            (reply.status == 200 && etag != reply.headers.end() && !notes_.ETag.empty() && etag->second == notes_.ETag))
          return;
      }
    }
    download(context);
    notes_ = download_.notes;
  }

  bool read_notes(const std::string& text) {
    try {
      notes_ = json::decode<UrlNotes>(json::parse(text));
    } catch (const Error&) {
      return false;  // damaged: it is fetched anew
    }
    return storage::is_sha256_digest(notes_.Digest) && !(notes_.ETag.empty() && notes_.LastModified.empty());
  }

  HttpRequest make_request(solver::OpContext& context) const {
    const buildlink::Settings settings = services_.engine.settings();
    HttpRequest request;
    request.url = url_;
    request.headers = headers_;
    request.http_proxy = settings.HttpProxy;
    request.https_proxy = settings.HttpsProxy;
    request.no_proxy = settings.NoProxy;
    if (!auth_secret_.empty()) {
      try {
        request.headers.push_back("Authorization: " +
                                  services_.sessions.secret(context.sessions.ids(), auth_secret_, context.stop));
      } catch (const Error& e) {
        if (e.code() != Errc::not_found) throw;
      }
    }
    return request;
  }

  void download(solver::OpContext& context) {
    sys::make_directories(services_.work_directory, 0700);
    Download fresh;
    fresh.file = sys::Fd(::open(services_.work_directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (!fresh.file) throw Error::from_errno(errno, "create temporary file");
    storage::Sha256 hash;
    const auto line = context.progress.status(is_upload() ? "transferring context:" : "downloading " + url_);
    std::int64_t bytes = 0;
    const auto write = [&](std::string_view piece) {
      sys::write_all(fresh.file.get(), piece);
      hash.update(piece);
      line->update(bytes += static_cast<std::int64_t>(piece.size()));
    };
    if (is_upload()) {
      const auto session = services_.sessions.wait(session_, session::Sessions::kWait, context.stop);
      session->pull_upload(url_, write, context.stop);
    } else {
      fetch(context, write, fresh.notes);
    }
    fresh.notes.Digest = hash.digest();
    download_ = std::move(fresh);
    remember();
  }

  void fetch(solver::OpContext& context, const std::function<void(std::string_view)>& write, UrlNotes& notes) const {
    const HttpReply reply = fetch_http(make_request(context), {write, {}}, context.stop);
    if (reply.status < 200 || reply.status > 299)
      throw Error(Errc::not_found, fmt::format("invalid response status {}", reply.status));
    const auto header = [&](const char* name) {
      const auto it = reply.headers.find(name);
      return it == reply.headers.end() ? std::string() : it->second;
    };
    notes.ETag = header("etag");
    notes.LastModified = header("last-modified");
    const std::string disposition = header("content-disposition");
    if (const std::size_t at = disposition.find("filename="); at != std::string::npos) {
      std::string name = disposition.substr(at + 9);
      name.erase(std::min(name.find(';'), name.size()));
      std::erase(name, '"');
      notes.FileName = safe_name(std::string(trim(name)));
    }
  }

  /// One small file for each URL and set of headers.
  sys::Path notes_file() const {
    return services_.work_directory / "http" / storage::sha256_digest(url_ + "\n" + join(headers_, "\n")).substr(7);
  }

  void remember() const {
    const UrlNotes& notes = download_.notes;
    if (is_upload() || (notes.ETag.empty() && notes.LastModified.empty())) return;
    const sys::Path directory = services_.work_directory / "http";
    sys::make_directories(directory, 0700);
    if (sys::list_directory(directory).size() >= kMostNotes) {
      sys::remove_tree(directory);
      sys::make_directories(directory, 0700);
    }
    sys::write_atomically(notes_file(), json::render(json::encode(notes)), 0600, false);
  }

  void write_file(const sys::Fd& root) const {
    const std::string base = name();
    const sys::Fd file(::openat(root.get(), base.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file) throw Error::from_errno(errno, "create " + base);
    storage::copy_content(download_.file.get(), file.get());
    const timespec modified{parse_http_date(notes_.LastModified), 0};
    const timespec times[2] = {modified, modified};
    if (::fchown(file.get(), uid_, gid_) != 0 || ::fchmod(file.get(), mode_) != 0 ||
        ::futimens(file.get(), times) != 0 || ::futimens(root.get(), times) != 0)
      throw Error::from_errno(errno, "set attributes of " + base);
  }

  const Services& services_;
  const std::string url_;
  std::string checksum_;
  std::string file_name_;
  mode_t mode_ = 0600;
  uid_t uid_ = 0;
  gid_t gid_ = 0;
  std::string session_;
  std::vector<std::string> headers_;
  std::string auth_secret_;
  UrlNotes notes_;
  Download download_;
};

}  // namespace

std::unique_ptr<solver::Operation> make_http_source(const Services& services, const llb::Vertex& vertex) {
  return std::make_unique<HttpSource>(services, vertex);
}

}  // namespace gantry::buildops
