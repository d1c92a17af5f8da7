#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sys/file.hpp"

struct sqlite3;
struct sqlite3_stmt;
struct sqlite3_value;

/// A thin owner of SQLite. Used from the db lane only (one thread), so nothing here locks. Everything throws Error:
/// unavailable when the disk is full or busy, corrupted when the file is damaged, conflict for a broken constraint.
namespace gantry::db {

class Db;

/// A prepared statement. Bind positions and columns count from 1 and 0, as in SQLite.
///
///     Stmt find(db, "SELECT name FROM networks WHERE id = ?");
///     find.bind(1, id);
///     while (find.step()) use(find.text(0));
class Stmt {
 public:
  Stmt(Db& db, std::string_view sql);
  ~Stmt();
  Stmt(Stmt&&) noexcept;
  Stmt& operator=(Stmt&&) = delete;

  Stmt& bind(int position, std::string_view text);
  Stmt& bind(int position, const char* text) { return bind(position, std::string_view(text)); }
  Stmt& bind(int position, const std::string& text) { return bind(position, std::string_view(text)); }
  Stmt& bind(int position, std::int64_t number);
  Stmt& bind(int position, int number) { return bind(position, static_cast<std::int64_t>(number)); }
  Stmt& bind(int position, bool flag) { return bind(position, static_cast<std::int64_t>(flag)); }
  Stmt& bind_null(int position);
  Stmt& bind_value(int position, const sqlite3_value* value);

  /// True while there is a row. After the last one the statement is reset and can be bound anew.
  bool step();
  /// For statements without rows: runs to the end and resets.
  void run();

  std::string text(int column) const;
  std::int64_t integer(int column) const;
  bool is_null(int column) const;

 private:
  Db* db_;
  sqlite3_stmt* stmt_ = nullptr;
};

/// The state database. A commit is on stable storage when it returns.
class Db {
 public:
  /// Opens or creates the file and applies the migrations it lacks. A damaged file throws corrupted; the caller keeps
  /// it aside (see quarantine) and starts anew.
  explicit Db(const sys::Path& file);
  /// A database of another kind, with steps of its own: see migrations().
  Db(const sys::Path& file, const std::vector<std::vector<const char*>>& steps);
  ~Db();
  Db(const Db&) = delete;
  Db& operator=(const Db&) = delete;

  void execute(const char* sql);
  /// Rows changed by the last statement.
  std::int64_t changes() const;
  std::int64_t last_insert_id() const;
  /// Rows changed since it was opened.
  std::int64_t total_changes() const;
  int schema_version();
  /// Keeps `bytes` of the disk in `file`, to be given up when a commit finds the disk full: removals and ends of
  /// containers must be written then, too. Makes the file if it is not there and there is room; blocks.
  void keep_reserve(const sys::Path& file, std::int64_t bytes);
  /// "ok", or what PRAGMA quick_check finds.
  std::string check();
  /// Renames a damaged file (with -wal and -shm) so that nothing is lost; returns its new path.
  static sys::Path quarantine(const sys::Path& file);

 private:
  friend class Stmt;
  friend class Tx;
  void migrate(const std::vector<std::vector<const char*>>& steps);
  /// True if the disk was full and there is room now: what failed is worth another try.
  bool give_up_reserve(int code);
  [[noreturn]] void fail(std::string_view what) const;
  sqlite3* handle_ = nullptr;
  sys::Path reserve_;  // empty: none
};

/// A transaction: rolled back unless committed.
class Tx {
 public:
  explicit Tx(Db& db);
  ~Tx();
  Tx(const Tx&) = delete;
  Tx& operator=(const Tx&) = delete;
  void commit();

 private:
  Db& db_;
  bool open_ = true;
};

}  // namespace gantry::db
