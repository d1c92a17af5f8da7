#include "db/sqlite.hpp"

#include <cstdio>

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <fmt/format.h>
#include <sqlite3.h>

#include "base/error.hpp"
#include "base/time.hpp"
#include "db/migrations.hpp"

namespace gantry::db {
namespace {

Errc kind_of(int code) {
  switch (code & 0xff) {
    case SQLITE_FULL:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_IOERR:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN: return Errc::unavailable;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return Errc::corrupted;
    case SQLITE_CONSTRAINT: return Errc::conflict;
    default: return Errc::internal;
  }
}

}  // namespace

Stmt::Stmt(Db& db, std::string_view sql) : db_(&db) {
  if (::sqlite3_prepare_v2(db.handle_, sql.data(), static_cast<int>(sql.size()), &stmt_, nullptr) != SQLITE_OK)
    db.fail(sql);
}

Stmt::~Stmt() { ::sqlite3_finalize(stmt_); }

Stmt::Stmt(Stmt&& other) noexcept : db_(other.db_), stmt_(std::exchange(other.stmt_, nullptr)) {}

Stmt& Stmt::bind(int position, std::string_view text) {
  // A null pointer would bind NULL, not an empty text.
  const char* data = text.data() == nullptr ? "" : text.data();
  if (::sqlite3_bind_text(stmt_, position, data, static_cast<int>(text.size()), SQLITE_TRANSIENT) != SQLITE_OK)
    db_->fail("bind");
  return *this;
}

Stmt& Stmt::bind(int position, std::int64_t number) {
  if (::sqlite3_bind_int64(stmt_, position, number) != SQLITE_OK) db_->fail("bind");
  return *this;
}

Stmt& Stmt::bind_null(int position) {
  if (::sqlite3_bind_null(stmt_, position) != SQLITE_OK) db_->fail("bind");
  return *this;
}

Stmt& Stmt::bind_value(int position, const sqlite3_value* value) {
  if (::sqlite3_bind_value(stmt_, position, value) != SQLITE_OK) db_->fail("bind");
  return *this;
}

bool Stmt::step() {
  int code = ::sqlite3_step(stmt_);
  if (code != SQLITE_ROW && code != SQLITE_DONE && db_->give_up_reserve(code)) {
    ::sqlite3_reset(stmt_);
    code = ::sqlite3_step(stmt_);
  }
  if (code == SQLITE_ROW) return true;
  ::sqlite3_reset(stmt_);
  if (code != SQLITE_DONE) db_->fail(::sqlite3_sql(stmt_));
  return false;
}

void Stmt::run() {
  while (step()) {
  }
}

std::string Stmt::text(int column) const {
  const auto* bytes = reinterpret_cast<const char*>(::sqlite3_column_text(stmt_, column));
  return bytes == nullptr ? std::string()
                          : std::string(bytes, static_cast<std::size_t>(::sqlite3_column_bytes(stmt_, column)));
}

std::int64_t Stmt::integer(int column) const { return ::sqlite3_column_int64(stmt_, column); }
bool Stmt::is_null(int column) const { return ::sqlite3_column_type(stmt_, column) == SQLITE_NULL; }

Db::Db(const sys::Path& file) : Db(file, migrations()) {}

Db::Db(const sys::Path& file, const std::vector<std::vector<const char*>>& steps) {
  constexpr int kFlags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX;
  if (::sqlite3_open_v2(file.c_str(), &handle_, kFlags, nullptr) != SQLITE_OK) {
    Error error(kind_of(::sqlite3_extended_errcode(handle_)),
                fmt::format("open {}: {}", file.string(), ::sqlite3_errmsg(handle_)));
    ::sqlite3_close_v2(handle_);
    throw error;
  }
  try {
    ::sqlite3_busy_timeout(handle_, 5000);
    execute("PRAGMA journal_mode = WAL");
    // FULL syncs the log at every commit: what was answered survives a power cut.
    execute("PRAGMA synchronous = FULL");
    execute("PRAGMA foreign_keys = ON");
    execute("PRAGMA cache_size = -1024");
    execute("PRAGMA journal_size_limit = 4194304");
    migrate(steps);
  } catch (...) {
    ::sqlite3_close_v2(handle_);
    throw;
  }
}

Db::~Db() { ::sqlite3_close_v2(handle_); }

void Db::execute(const char* sql) {
  const bool in_transaction = ::sqlite3_get_autocommit(handle_) == 0;
  int code = ::sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
  // A commit that found no room may have been rolled back: it is then for the caller to begin anew.
  const bool rolled_back = in_transaction && ::sqlite3_get_autocommit(handle_) != 0;
  if (code != SQLITE_OK && !rolled_back && give_up_reserve(code))
    code = ::sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) fail(sql);
}

void Db::keep_reserve(const sys::Path& file, std::int64_t bytes) {
  reserve_ = file;
  struct statvfs st{};
  if (::access(file.c_str(), F_OK) == 0 || ::statvfs(file.parent_path().c_str(), &st) != 0) return;
  // Not the last room on the disk.
  if (static_cast<std::int64_t>(st.f_bavail) * static_cast<std::int64_t>(st.f_frsize) < 8 * bytes) return;
  const sys::Fd fd = sys::open_file(file, O_WRONLY | O_CREAT, 0600);
  if (::fallocate(fd.get(), 0, 0, bytes) != 0) ::unlink(file.c_str());
}

bool Db::give_up_reserve(int code) {
  const bool full = (code & 0xff) == SQLITE_FULL || (code & 0xff) == SQLITE_IOERR;
  return full && !reserve_.empty() && ::unlink(reserve_.c_str()) == 0;
}

std::int64_t Db::changes() const { return ::sqlite3_changes64(handle_); }
std::int64_t Db::total_changes() const { return ::sqlite3_total_changes64(handle_); }
std::int64_t Db::last_insert_id() const { return ::sqlite3_last_insert_rowid(handle_); }

int Db::schema_version() {
  Stmt version(*this, "PRAGMA user_version");
  version.step();
  return static_cast<int>(version.integer(0));
}

std::string Db::check() {
  Stmt check(*this, "PRAGMA quick_check(5)");
  std::string out;
  while (check.step()) out += (out.empty() ? "" : "; ") + check.text(0);
  return out;
}

void Db::migrate(const std::vector<std::vector<const char*>>& all) {
  const int have = schema_version();
  if (have > static_cast<int>(all.size()))
    throw Error(Errc::invalid_argument,
                fmt::format("the state database was written by a newer gantryd (schema {}, this one knows {})", have,
                            all.size()));
  for (int next = have; next < static_cast<int>(all.size()); ++next) {
    Tx tx(*this);
    for (const char* sql : all[static_cast<std::size_t>(next)]) execute(sql);
    execute(fmt::format("PRAGMA user_version = {}", next + 1).c_str());
    tx.commit();
  }
}

void Db::fail(std::string_view what) const {
  const int code = ::sqlite3_extended_errcode(handle_);
  throw Error(kind_of(code), fmt::format("state database: {} ({})", ::sqlite3_errmsg(handle_), what.substr(0, 120)));
}

sys::Path Db::quarantine(const sys::Path& file) {
  const std::string suffix = fmt::format(".damaged-{}", now().time_since_epoch().count());
  for (const char* part : {"", "-wal", "-shm"})
    (void)::rename((file.string() + part).c_str(), (file.string() + suffix + part).c_str());
  return file.string() + suffix;
}

Tx::Tx(Db& db) : db_(db) { db_.execute("BEGIN IMMEDIATE"); }

Tx::~Tx() {
  // A failed statement may have rolled back already (disk full); a second ROLLBACK then fails and changes nothing.
  if (open_) (void)::sqlite3_exec(db_.handle_, "ROLLBACK", nullptr, nullptr, nullptr);
}

void Tx::commit() {
  db_.execute("COMMIT");
  open_ = false;
}

}  // namespace gantry::db
