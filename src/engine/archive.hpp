#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "async/task.hpp"
#include "engine/container_store.hpp"
#include "engine/lifecycle.hpp"
#include "engine/services.hpp"
#include "engine/stream_client.hpp"
#include "storage/root_access.hpp"

namespace gantry::engine {

/// Who reads an archive.
class ArchiveReader : public ByteWriter {
 public:
  /// Called once, before the first write, when it is certain that there is something to send.
  virtual Task<void> begin(storage::PathStat stat) = 0;
};

/// Who sends an archive.
class ArchiveWriter {
 public:
  virtual ~ArchiveWriter() = default;
  /// The next bytes; empty at the end. Throws when the sender has gone.
  virtual Task<std::string> read() = 0;
};

struct ExtractOptions {
  bool no_overwrite_dir_non_dir = false;
  bool copy_uid_gid = false;  // everything belongs to the container's user
};

struct ArchiveSession;  // one transfer

/// `docker cp`: reads and writes in the files of a container, whether it runs or not (see ContainerTree). No lock is
/// held and no lane that others use is busy while a client reads or writes: every transfer has a thread of its own.
/// A container that is removed ends its transfers with an error. Path texts in errors are the client's own.
class Archive {
 public:
  Archive(Services& services, ContainerStore& store, Lifecycle& lifecycle)
      : services_(services), store_(store), lifecycle_(lifecycle) {}

  /// Throws not_found `Could not find the file <path> in container <reference>`.
  Task<storage::PathStat> stat(std::string reference, std::string path);
  /// Sends the tar of `path`. Publishes `archive-path`. Throws as stat() before begin(); afterwards the stream is
  /// incomplete if it throws.
  Task<void> read(std::string reference, std::string path, std::shared_ptr<ArchiveReader> reader);
  /// Unpacks a tar, compressed or not, into the directory `path`. Publishes `extract-to-dir`. Throws not_found;
  /// invalid_argument if it is no directory or read-only, or for a tar that breaks the rules.
  Task<void> write(std::string reference, std::string path, ExtractOptions options,
                   std::shared_ptr<ArchiveWriter> writer);

 private:
  using SessionPtr = std::shared_ptr<ArchiveSession>;

  SessionPtr begin(const std::string& reference, const std::string& path);
  Task<void> run(SessionPtr session, Task<void> steps);
  Task<void> open(SessionPtr session);
  Task<void> close(SessionPtr session);
  Task<void> stat_steps(SessionPtr session);
  Task<void> read_steps(SessionPtr session, std::shared_ptr<ArchiveReader> reader);
  Task<void> write_steps(SessionPtr session, ExtractOptions options, std::shared_ptr<ArchiveWriter> writer);

  Services& services_;
  ContainerStore& store_;
  Lifecycle& lifecycle_;
  std::size_t transfers_ = 0;  // under way, or given up while a thread waits in the kernel
  std::uint64_t last_number_ = 0;
};

}  // namespace gantry::engine
