#include "db/restore.hpp"

#include <cstdio>

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "db/sqlite.hpp"

namespace gantry::db {
namespace {

void remove_database(const sys::Path& file) {
  for (const char* part : {"", "-wal", "-shm", "-journal"}) ::unlink((file.string() + part).c_str());
}

void sync_file(const sys::Path& file) {
  const sys::Fd fd = sys::open_file(file, O_RDONLY);
  if (::fsync(fd.get()) != 0) throw Error::from_errno(errno, "sync " + file.string());
}

/// A damaged database, read as far as it goes.
class Wreck {
 public:
  explicit Wreck(const sys::Path& file) {
    if (::sqlite3_open_v2(file.c_str(), &handle_, SQLITE_OPEN_READWRITE, nullptr) != SQLITE_OK) close();
  }
  ~Wreck() { close(); }
  Wreck(const Wreck&) = delete;
  Wreck& operator=(const Wreck&) = delete;

  using Row = std::vector<sqlite3_value*>;
  struct Table {
    std::vector<Row> rows;
    bool whole = false;
    ~Table() {
      for (Row& row : rows)
        for (sqlite3_value* value : row) ::sqlite3_value_free(value);
    }
  };

  /// From both ends, when the way from one is blocked.
  void read(const std::string& table, const std::string& columns, const std::string& order, Table& out) const {
    if (handle_ == nullptr) return;
    out.whole = read_rows(fmt::format("SELECT {} FROM {}", columns, table), out);
    if (!out.whole) (void)read_rows(fmt::format("SELECT {} FROM {} ORDER BY {} DESC", columns, table, order), out);
  }

 private:
  void close() {
    ::sqlite3_close_v2(handle_);
    handle_ = nullptr;
  }
  bool read_rows(const std::string& sql, Table& out) const {
    sqlite3_stmt* stmt = nullptr;
    if (::sqlite3_prepare_v2(handle_, sql.c_str(), -1, &stmt, nullptr) != SQLITE_OK) return false;
    int code = SQLITE_ROW;
    while ((code = ::sqlite3_step(stmt)) == SQLITE_ROW) {
      Row row;
      for (int i = 0; i < ::sqlite3_column_count(stmt); ++i)
        row.push_back(::sqlite3_value_dup(::sqlite3_column_value(stmt, i)));
      out.rows.push_back(std::move(row));
    }
    ::sqlite3_finalize(stmt);
    return code == SQLITE_DONE;
  }
  sqlite3* handle_ = nullptr;
};

std::vector<std::string> list_tables(Db& db) {
  std::vector<std::string> out;
  Stmt all(db, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
  while (all.step()) out.push_back(all.text(0));
  return out;
}

struct Columns {
  std::string all;
  std::string key;
  int count = 0;
};

Columns list_columns(Db& db, const std::string& table) {
  Columns out;
  Stmt info(db, fmt::format("PRAGMA table_info({})", table));
  while (info.step()) {
    out.all += (out.all.empty() ? "" : ", ") + info.text(1);
    if (info.integer(5) > 0) out.key += (out.key.empty() ? "" : ", ") + info.text(1);
    ++out.count;
  }
  if (out.key.empty()) out.key = "rowid";
  return out;
}

/// Rows that break a constraint are damaged and left out.
std::int64_t write_rows(Db& db, const std::string& table, const Columns& columns, const Wreck::Table& from) {
  std::string marks = "?";
  for (int i = 1; i < columns.count; ++i) marks += ", ?";
  Stmt put(db, fmt::format("INSERT OR REPLACE INTO {} ({}) VALUES ({})", table, columns.all, marks));
  std::int64_t written = 0;
  for (const Wreck::Row& row : from.rows) {
    try {
      for (std::size_t i = 0; i < row.size(); ++i) put.bind_value(static_cast<int>(i) + 1, row[i]);
      put.run();
      ++written;
    } catch (const Error& e) {
      if (e.code() != Errc::conflict && e.code() != Errc::internal) throw;
    }
  }
  return written;
}

/// Begins with the copy, if that is good, else with nothing.
std::unique_ptr<Db> open_base(const sys::Path& file, const sys::Path& copy, bool* from_copy) {
  remove_database(file);
  std::error_code ec;
  if (std::filesystem::copy_file(copy, file, ec)) {
    try {
      auto db = std::make_unique<Db>(file);
      if (db->check() == "ok") {
        *from_copy = true;
        return db;
      }
    } catch (const Error& e) {
      if (e.code() != Errc::corrupted && e.code() != Errc::internal) throw;
    }
    remove_database(file);
  }
  return std::make_unique<Db>(file);
}

}  // namespace

sys::Path copy_of(const sys::Path& file) { return file.string() + ".copy"; }

void copy_database(Db& db, const sys::Path& file) {
  const sys::Path fresh = file.string() + ".copy.new";
  remove_database(fresh);
  db.execute(fmt::format("VACUUM INTO '{}'", fresh.string()).c_str());
  sync_file(fresh);
  FAILPOINT("db.copy.before_rename");
  if (::rename(fresh.c_str(), copy_of(file).c_str()) != 0) throw Error::from_errno(errno, "rename " + fresh.string());
  sys::sync_directory(file.parent_path());
}

Restored restore_database(const sys::Path& file) {
  Restored out;
  out.kept = Db::quarantine(file);
  FAILPOINT("db.restore.after_quarantine");
  const sys::Path fresh = file.string() + ".new";
  {
    const std::unique_ptr<Db> db = open_base(fresh, copy_of(file), &out.from_copy);
    const Wreck wreck(out.kept);
    db->execute("PRAGMA foreign_keys = OFF");
    Tx tx(*db);
    for (const std::string& table : list_tables(*db)) {
      const Columns columns = list_columns(*db, table);
      Wreck::Table found;
      wreck.read(table, columns.all, columns.key, found);
      if (found.whole) db->execute(fmt::format("DELETE FROM {}", table).c_str());
      else out.incomplete.push_back(table);
      out.rows += write_rows(*db, table, columns, found);
    }
    tx.commit();
    db->execute("PRAGMA wal_checkpoint(TRUNCATE)");
  }
  sync_file(fresh);
  if (::rename(fresh.c_str(), file.c_str()) != 0) throw Error::from_errno(errno, "rename " + fresh.string());
  remove_database(fresh);
  sys::sync_directory(file.parent_path());
  return out;
}

}  // namespace gantry::db
