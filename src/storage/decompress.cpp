#include "storage/decompress.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include <archive.h>
#include <archive_entry.h>
#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include <fmt/format.h>

#include "base/error.hpp"

namespace gantry::storage {
namespace {

constexpr std::size_t kInputSize = 128 << 10;

[[noreturn]] void fail_short(std::string_view format) {
  throw Error(Errc::corrupted, fmt::format("{}: unexpected EOF", format));
}

/// Compressed bytes, with a buffer in front that may be peeked at.
class Input {
 public:
  explicit Input(std::shared_ptr<ByteSource> source) : source_(std::move(source)), buffer_(kInputSize) {}

  /// At least `count` bytes unless the source ends before.
  std::string_view peek(std::size_t count) {
    if (begin_ > 0 && end_ - begin_ < count) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    while (end_ - begin_ < count) {
      const std::size_t got = source_->read(buffer_.data() + end_, buffer_.size() - end_);
      if (got == 0) break;
      end_ += got;
    }
    return {buffer_.data() + begin_, end_ - begin_};
  }
  void consume(std::size_t count) {
    begin_ += count;
    consumed_ += count;
  }
  std::uint64_t consumed() const noexcept { return consumed_; }
  void abort() noexcept { source_->abort(); }

 private:
  std::shared_ptr<ByteSource> source_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::uint64_t consumed_ = 0;
};

/// One way of turning input into output. decode() gives 0 only at the end.
class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual std::size_t decode(Input& in, char* to, std::size_t size) = 0;
};

class IdentityDecoder final : public Decoder {
 public:
  std::size_t decode(Input& in, char* to, std::size_t size) override {
    const std::string_view bytes = in.peek(1);
    const std::size_t count = std::min(size, bytes.size());
    std::memcpy(to, bytes.data(), count);
    in.consume(count);
    return count;
  }
};

class GzipDecoder final : public Decoder {
 public:
  GzipDecoder() : state_(std::make_unique<inflate_state>()) { start_member(); }

  std::size_t decode(Input& in, char* to, std::size_t size) override {
    for (;;) {
      if (state_->block_state == ISAL_BLOCK_FINISH) {
        if (!at_next_member(in)) return 0;
        start_member();
      }
      const std::string_view bytes = in.peek(1);
      state_->next_in = reinterpret_cast<std::uint8_t*>(const_cast<char*>(bytes.data()));
      state_->avail_in = static_cast<std::uint32_t>(bytes.size());
      state_->next_out = reinterpret_cast<std::uint8_t*>(to);
      state_->avail_out = static_cast<std::uint32_t>(std::min<std::size_t>(size, 1u << 30));
      const std::uint32_t room = state_->avail_out;
      const int result = isal_inflate(state_.get());
      if (result < 0 || result == ISAL_NEED_DICT)
        throw Error(Errc::corrupted,
                    result == ISAL_INCORRECT_CHECKSUM ? "gzip: invalid checksum" : "gzip: invalid data");
      in.consume(bytes.size() - state_->avail_in);
      const std::size_t out = room - state_->avail_out;
      if (out > 0) return out;
      if (bytes.empty() && state_->block_state != ISAL_BLOCK_FINISH) fail_short("gzip");
    }
  }

 private:
  void start_member() {
    isal_inflate_init(state_.get());
    state_->crc_flag = ISAL_GZIP;
  }
  /// Zeros after the last member are padding, as gzip(1) has it.
  static bool at_next_member(Input& in) {
    for (;;) {
      const std::string_view bytes = in.peek(2);
      if (bytes.empty()) return false;
      if (bytes.size() >= 2 && bytes[0] == '\x1f' && bytes[1] == '\x8b') return true;
      if (bytes[0] != '\0') throw Error(Errc::corrupted, "gzip: invalid header");
      in.consume(1);
    }
  }
  std::unique_ptr<inflate_state> state_;
};

class ZstdDecoder final : public Decoder {
 public:
  ZstdDecoder() : stream_(ZSTD_createDStream()) {
    if (stream_ == nullptr) throw Error(Errc::internal, "zstd: out of memory");
    // The library's own default: what `zstd --long=27` makes is read, more is refused.
    ZSTD_DCtx_setParameter(stream_, ZSTD_d_windowLogMax, 27);
  }
  ~ZstdDecoder() override { ZSTD_freeDStream(stream_); }

  std::size_t decode(Input& in, char* to, std::size_t size) override {
    for (;;) {
      const std::string_view bytes = in.peek(1);
      if (bytes.empty() && between_frames_) return 0;
      ZSTD_inBuffer input{bytes.data(), bytes.size(), 0};
      ZSTD_outBuffer output{to, size, 0};
      const std::size_t result = ZSTD_decompressStream(stream_, &output, &input);
      if (ZSTD_isError(result)) throw Error(Errc::corrupted, fmt::format("zstd: {}", ZSTD_getErrorName(result)));
      between_frames_ = result == 0;
      in.consume(input.pos);
      if (output.pos > 0) return output.pos;
      if (bytes.empty() && !between_frames_) fail_short("zstd");
    }
  }

 private:
  ZSTD_DStream* stream_;
  bool between_frames_ = true;
};

/// xz and bzip2 by libarchive's filters (with liblzma and libbz2 behind them). It limits their memory to 1 GiB.
class ArchiveDecoder final : public Decoder {
 public:
  explicit ArchiveDecoder(Compression kind)
      : name_(kind == Compression::xz ? "xz" : "bzip2"), archive_(archive_read_new()) {
    if (archive_ == nullptr) throw Error(Errc::internal, "libarchive: out of memory");
    if (kind == Compression::xz) archive_read_support_filter_xz(archive_);
    else archive_read_support_filter_bzip2(archive_);
    archive_read_support_format_raw(archive_);
    archive_read_support_format_empty(archive_);
  }
  ~ArchiveDecoder() override { archive_read_free(archive_); }

  std::size_t decode(Input& in, char* to, std::size_t size) override {
    if (!open_) open(in);
    if (at_end_) return 0;
    const la_ssize_t got = archive_read_data(archive_, to, size);
    if (got < 0) fail();
    return static_cast<std::size_t>(got);
  }

 private:
  void open(Input& in) {
    input_ = &in;
    open_ = true;
    if (archive_read_open(archive_, this, nullptr, &ArchiveDecoder::on_read, nullptr) != ARCHIVE_OK) fail();
    archive_entry* entry = nullptr;
    const int result = archive_read_next_header(archive_, &entry);
    if (result == ARCHIVE_EOF) at_end_ = true;
    else if (result != ARCHIVE_OK) fail();
  }
  [[noreturn]] void fail() {
    if (failure_) std::rethrow_exception(failure_);
    const char* text = archive_error_string(archive_);
    const std::string_view reason = text != nullptr ? text : "invalid data";
    // liblzma says of a stream that is cut short that it makes no progress.
    if (input_ended_ || reason.find("truncated") != std::string_view::npos) fail_short(name_);
    throw Error(Errc::corrupted, fmt::format("{}: {}", name_, reason));
  }
  static la_ssize_t on_read(archive* a, void* self_pointer, const void** buffer) {
    auto& self = *static_cast<ArchiveDecoder*>(self_pointer);
    try {
      self.input_->consume(self.lent_);
      const std::string_view bytes = self.input_->peek(1);
      self.lent_ = bytes.size();
      self.input_ended_ = bytes.empty();
      *buffer = bytes.data();
      return static_cast<la_ssize_t>(bytes.size());
    } catch (const Error& e) {
      // An exception must not cross the C library: fail() throws it on.
      self.failure_ = std::current_exception();
      self.lent_ = 0;
      archive_set_error(a, EIO, "%s", e.what());
      return ARCHIVE_FATAL;
    }
  }

  const char* name_;
  archive* archive_;
  Input* input_ = nullptr;
  std::size_t lent_ = 0;
  bool open_ = false;
  bool at_end_ = false;
  bool input_ended_ = false;
  std::exception_ptr failure_;
};

std::unique_ptr<Decoder> make_decoder(Compression kind) {
  switch (kind) {
    case Compression::none: return std::make_unique<IdentityDecoder>();
    case Compression::gzip: return std::make_unique<GzipDecoder>();
    case Compression::zstd: return std::make_unique<ZstdDecoder>();
    case Compression::xz:
    case Compression::bzip2: return std::make_unique<ArchiveDecoder>(kind);
  }
  throw Error(Errc::internal, "unknown compression");
}

class Decompressor final : public ByteSource {
 public:
  Decompressor(std::shared_ptr<ByteSource> source, const UnpackBudget& budget)
      : input_(std::move(source)), budget_(budget) {}

  std::size_t read(char* to, std::size_t size) override {
    if (!decoder_) decoder_ = make_decoder(detect_compression(input_.peek(6)));
    const std::size_t got = decoder_->decode(input_, to, size);
    produced_ += got;
    if (produced_ > budget_.bytes)
      throw Error(Errc::invalid_argument,
                  fmt::format("archive is larger than the limit of {} bytes uncompressed", budget_.bytes));
    if (produced_ > budget_.ratio_free_bytes && produced_ / budget_.ratio > input_.consumed())
      throw Error(Errc::invalid_argument,
                  fmt::format("archive expands more than {} times: refused as a decompression bomb", budget_.ratio));
    return got;
  }
  void abort() noexcept override { input_.abort(); }

 private:
  Input input_;
  const UnpackBudget budget_;
  std::unique_ptr<Decoder> decoder_;
  std::uint64_t produced_ = 0;
};

class ReadAhead final : public ByteSource {
 public:
  ReadAhead(std::shared_ptr<ByteSource> source, std::size_t capacity)
      : source_(std::move(source)), channel_(capacity), thread_([this] { pump(); }) {}
  ~ReadAhead() override {
    abort();
    thread_.join();
  }
  std::size_t read(char* to, std::size_t size) override { return channel_.read(to, size); }
  void abort() noexcept override {
    source_->abort();
    channel_.abort();
  }

 private:
  void pump() noexcept {
    try {
      std::vector<char> buffer(256 << 10);
      while (const std::size_t got = source_->read(buffer.data(), buffer.size()))
        channel_.write_blocking({buffer.data(), got});
      channel_.close();
    } catch (const std::exception&) {
      channel_.fail(std::current_exception());
    }
  }
  std::shared_ptr<ByteSource> source_;
  ByteChannel channel_;
  std::thread thread_;
};

}  // namespace

Compression detect_compression(std::string_view first) noexcept {
  using namespace std::string_view_literals;
  if (first.starts_with("\x1f\x8b\x08"sv)) return Compression::gzip;
  if (first.starts_with("\x28\xb5\x2f\xfd"sv)) return Compression::zstd;
  // A skippable frame: 0x184D2A50 to 0x184D2A5F, little endian.
  if (first.size() >= 4 && (first[0] & '\xf0') == '\x50' && first.substr(1, 3) == "\x2a\x4d\x18"sv)
    return Compression::zstd;
  if (first.starts_with("\xfd"
                        "7zXZ\0"sv))
    return Compression::xz;
  if (first.starts_with("BZh"sv)) return Compression::bzip2;
  return Compression::none;
}

std::shared_ptr<ByteSource> decompress(std::shared_ptr<ByteSource> source, const UnpackBudget& budget) {
  return std::make_shared<Decompressor>(std::move(source), budget);
}

std::shared_ptr<ByteSource> read_ahead(std::shared_ptr<ByteSource> source, std::size_t capacity) {
  return std::make_shared<ReadAhead>(std::move(source), capacity);
}

}  // namespace gantry::storage
