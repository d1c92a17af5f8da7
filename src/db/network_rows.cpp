#include "db/network_rows.hpp"

#include "json/codec.hpp"

namespace gantry::db {

extern const char* const kNetworkSchema;
const char* const kNetworkSchema = R"sql(
CREATE TABLE networks (
  id         TEXT PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  created_ns INTEGER NOT NULL,
  body       TEXT NOT NULL   -- JSON of NetworkRow
) WITHOUT ROWID;

CREATE TABLE sandboxes (
  container_id TEXT PRIMARY KEY,
  body         TEXT NOT NULL -- JSON of SandboxRow
) WITHOUT ROWID;

CREATE TABLE endpoints (
  id           TEXT PRIMARY KEY,
  network_id   TEXT NOT NULL REFERENCES networks (id),
  container_id TEXT NOT NULL REFERENCES sandboxes (container_id),
  address      TEXT,         -- null: none
  address6     TEXT,
  body         TEXT NOT NULL, -- JSON of EndpointRow
  UNIQUE (network_id, address),
  UNIQUE (network_id, address6)
) WITHOUT ROWID;
CREATE INDEX endpoints_of_container ON endpoints (container_id);

CREATE TABLE published_ports (
  proto          TEXT NOT NULL,
  host_ip        TEXT NOT NULL,
  host_port      INTEGER NOT NULL,
  endpoint_id    TEXT NOT NULL REFERENCES endpoints (id),
  container_port INTEGER NOT NULL,
  PRIMARY KEY (proto, host_ip, host_port)
) WITHOUT ROWID;
CREATE INDEX published_ports_of_endpoint ON published_ports (endpoint_id);
)sql";

namespace {

void bind_or_null(Stmt& stmt, int position, const std::string& text) {
  if (text.empty()) stmt.bind_null(position);
  else stmt.bind(position, text);
}

void write_ports(Db& db, const EndpointRow& row) {
  Stmt insert(db,
              "INSERT INTO published_ports (proto, host_ip, host_port, endpoint_id, container_port) "
              "VALUES (?, ?, ?, ?, ?)");
  for (const auto& port : row.ports)
    insert.bind(1, port.proto)
        .bind(2, port.host_ip)
        .bind(3, port.host_port)
        .bind(4, row.id)
        .bind(5, port.container_port)
        .run();
}

void write_endpoint(Db& db, const EndpointRow& row) {
  Stmt insert(
      db, "INSERT INTO endpoints (id, network_id, container_id, address, address6, body) VALUES (?, ?, ?, ?, ?, ?)");
  insert.bind(1, row.id).bind(2, row.network_id).bind(3, row.container_id);
  bind_or_null(insert, 4, row.address);
  bind_or_null(insert, 5, row.address6);
  insert.bind(6, json::encode_text(row)).run();
  write_ports(db, row);
}

void erase_ports(Db& db, const std::string& endpoint_id) {
  Stmt(db, "DELETE FROM published_ports WHERE endpoint_id = ?").bind(1, endpoint_id).run();
}

}  // namespace

void insert_network(Db& db, const NetworkRow& row) {
  Stmt insert(db, "INSERT INTO networks (id, name, created_ns, body) VALUES (?, ?, ?, ?)");
  insert.bind(1, row.id).bind(2, row.name).bind(3, row.created_ns).bind(4, json::encode_text(row)).run();
}

void update_network(Db& db, const NetworkRow& row) {
  Stmt(db, "UPDATE networks SET body = ? WHERE id = ?").bind(1, json::encode_text(row)).bind(2, row.id).run();
}

void remove_network(Db& db, const std::string& id) { Stmt(db, "DELETE FROM networks WHERE id = ?").bind(1, id).run(); }

std::vector<NetworkRow> load_networks(Db& db) {
  std::vector<NetworkRow> rows;
  Stmt select(db, "SELECT body FROM networks ORDER BY created_ns");
  while (select.step()) rows.push_back(json::decode_text<NetworkRow>(select.text(0)));
  return rows;
}

void insert_sandbox(Db& db, const SandboxRow& sandbox, const std::vector<EndpointRow>& endpoints) {
  Tx tx(db);
  Stmt(db, "INSERT INTO sandboxes (container_id, body) VALUES (?, ?)")
      .bind(1, sandbox.container_id)
      .bind(2, json::encode_text(sandbox))
      .run();
  for (const auto& row : endpoints) write_endpoint(db, row);
  tx.commit();
}

void update_sandbox(Db& db, const SandboxRow& sandbox) {
  Stmt(db, "UPDATE sandboxes SET body = ? WHERE container_id = ?")
      .bind(1, json::encode_text(sandbox))
      .bind(2, sandbox.container_id)
      .run();
}

void insert_endpoint(Db& db, const EndpointRow& row) {
  Tx tx(db);
  write_endpoint(db, row);
  tx.commit();
}

void update_endpoints(Db& db, const std::vector<EndpointRow>& rows) {
  Tx tx(db);
  // All ports go before any comes: they may move from one endpoint to another.
  for (const auto& row : rows) erase_ports(db, row.id);
  for (const auto& row : rows) {
    Stmt(db, "UPDATE endpoints SET body = ? WHERE id = ?").bind(1, json::encode_text(row)).bind(2, row.id).run();
    write_ports(db, row);
  }
  tx.commit();
}

void remove_endpoint(Db& db, const std::string& id) {
  Tx tx(db);
  erase_ports(db, id);
  Stmt(db, "DELETE FROM endpoints WHERE id = ?").bind(1, id).run();
  tx.commit();
}

void remove_sandbox(Db& db, const std::string& container_id) {
  Tx tx(db);
  Stmt(db, "DELETE FROM published_ports WHERE endpoint_id IN (SELECT id FROM endpoints WHERE container_id = ?)")
      .bind(1, container_id)
      .run();
  Stmt(db, "DELETE FROM endpoints WHERE container_id = ?").bind(1, container_id).run();
  Stmt(db, "DELETE FROM sandboxes WHERE container_id = ?").bind(1, container_id).run();
  tx.commit();
}

std::vector<SandboxRow> load_sandboxes(Db& db) {
  std::vector<SandboxRow> rows;
  Stmt select(db, "SELECT body FROM sandboxes");
  while (select.step()) rows.push_back(json::decode_text<SandboxRow>(select.text(0)));
  return rows;
}

std::vector<EndpointRow> load_endpoints(Db& db) {
  std::map<std::string, std::vector<PublishedPortRow>> ports;
  Stmt select_ports(db, "SELECT endpoint_id, proto, host_ip, host_port, container_port FROM published_ports");
  while (select_ports.step())
    ports[select_ports.text(0)].push_back({select_ports.text(0), select_ports.text(1), select_ports.text(2),
                                           static_cast<int>(select_ports.integer(3)),
                                           static_cast<int>(select_ports.integer(4))});
  std::vector<EndpointRow> rows;
  Stmt select(db, "SELECT body FROM endpoints");
  while (select.step()) {
    rows.push_back(json::decode_text<EndpointRow>(select.text(0)));
    if (auto it = ports.find(rows.back().id); it != ports.end()) rows.back().ports = std::move(it->second);
  }
  return rows;
}

}  // namespace gantry::db
