#include "network/names.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "network/files.hpp"
#include "network/world_for_test.hpp"

namespace gantry::network::test {
namespace {

TEST(NameTable, IsSortedLowerCaseAndWithoutWhatDnsCannotCarry) {
  NameTable table{"n1", "Blue", {}};
  table.entries.push_back({"Web", {"10.0.0.2", "fd00::2"}, {"Web", "ALIAS", "with space", "", std::string(300, 'x')}});
  table.entries.push_back({"db", {"10.0.0.10"}, {"db", "alias"}});
  EXPECT_EQ(render_name_table(table),
            "gantry-names 1 Blue\n"
            "a alias 10.0.0.10\n"
            "a alias 10.0.0.2\n"
            "a alias fd00::2\n"
            "a db 10.0.0.10\n"
            "a web 10.0.0.2\n"
            "a web fd00::2\n"
            "p 10.0.0.10 db\n"
            "p 10.0.0.2 Web\n"
            "p fd00::2 Web\n");
}

TEST(ContainerNames, ReadBackAsTheyWereWritten) {
  ContainerNames names;
  names.networks = {{"n1", {"db:store", "web:w"}}, {"n2", {}}};
  names.host_resolv_conf = "/etc/resolv.conf";
  names.external = true;
  EXPECT_EQ(parse_container_names(render_container_names(names)), names);
  names.servers = {"10.0.0.1", "fd00::1"};
  names.host_resolv_conf.clear();
  names.ndots = true;
  names.external = false;
  EXPECT_EQ(parse_container_names(render_container_names(names)), names);
  EXPECT_EQ(parse_container_names("garbage\n\nlink a b\nnetwork"),
            (ContainerNames{{{"", {}}}, {}, "", false, false, false}));
}

TEST(ResolvConf, TellsWhetherNdotsWasChosen) {
  EXPECT_TRUE(chooses_ndots("nameserver 1.1.1.1\noptions edns0 ndots:2\n"));
  EXPECT_FALSE(chooses_ndots("# options ndots:2\noptions edns0\n"));
  EXPECT_FALSE(chooses_ndots("options ndots:many\noptions ndots\n"));
}

class NamesOfNetworks : public World {
 protected:
  void SetUp() override {
    options.embedded_dns = true;
    options.host_resolv_conf = directory / "resolv.conf";
    sys::write_atomically(options.host_resolv_conf, "nameserver 192.0.2.1\n", 0644, false);
    restart();
    recover();
  }
  std::string make(const std::string& name, bool internal = false) {
    NetworkSpec spec;
    spec.name = name;
    spec.internal = internal;
    return run(networks->create_network(spec)).id;
  }
  std::string table(const std::string& id) { return text(NameFiles(options.names_directory).network_file(id)); }
  std::string own(const std::string& id) { return text(NameFiles(options.names_directory).container_file(id)); }
  static std::string text(const sys::Path& path) { return sys::find_file(path).value_or("none"); }
};

TEST_F(NamesOfNetworks, TablesFollowTheContainers) {
  const std::string blue = make("blue"), inner = make("inner", true);
  AttachRequest a = request("a", "blue");
  a.networks["blue"].links = {"db:store"};
  const AttachResult attached = attach(a);
  const std::string ip = attached.attachment.endpoints[0].ip_address;
  EXPECT_EQ(attached.attachment.names_path, NameFiles(options.names_directory).container_file(a.container_id));
  const std::string expected = fmt::format("a a {0}\na a00000000000 {0}\np {0} a\n", ip);
  EXPECT_EQ(table(blue), "gantry-names 1 blue\n" + expected);
  const std::string settings = "host-servers " + options.host_resolv_conf.string() + "\nexternal 1\n";
  EXPECT_EQ(own(a.container_id), "gantry-names 1\nnetwork " + blue + "\nlink store db\n" + settings);
  EXPECT_NE(text(a.container_directory / "resolv.conf").find("nameserver 127.0.0.11\noptions ndots:0\n"),
            std::string::npos);

  run(networks->connect("inner", a, {}));
  EXPECT_EQ(own(a.container_id),
            "gantry-names 1\nnetwork " + blue + "\nlink store db\nnetwork " + inner + "\n" + settings);
  run(networks->rename(a.container_id, "new"));
  EXPECT_NE(table(blue).find("a new " + ip), std::string::npos);
  EXPECT_EQ(table(blue).find("a a " + ip), std::string::npos);
  run(networks->disconnect("blue", a.container_id, false));
  EXPECT_EQ(table(blue), "gantry-names 1 blue\n");
  EXPECT_EQ(own(a.container_id).find("external"), std::string::npos);
  detach(a.container_id);
  EXPECT_EQ(own(a.container_id), "none");
  EXPECT_EQ(table(inner), "gantry-names 1 inner\n");
  run(networks->remove_network("inner"));
  EXPECT_EQ(table(inner), "none");
}

TEST_F(NamesOfNetworks, ADaemonThatComesBackKeepsSettingsAndSweepsTheRest) {
  const std::string blue = make("blue");
  AttachRequest a = request("a", "blue");
  a.dns = {"192.0.2.9"};
  a.networks["blue"].links = {"db:store"};
  attach(a);
  AttachRequest b = request("b", "blue");
  attach(b);
  const std::string before = own(a.container_id);
  EXPECT_NE(before.find("server 192.0.2.9\n"), std::string::npos);
  restart();
  recover({a.container_id});
  EXPECT_EQ(own(a.container_id), before);
  EXPECT_EQ(own(b.container_id), "none");
  EXPECT_EQ(table(blue).find("a b "), std::string::npos);
  EXPECT_FALSE(networks->find_attachment(a.container_id)->names_path.empty());
  detach(a.container_id);
}

TEST_F(NamesOfNetworks, ADefaultNetworkHasNoneUntilAnotherIsJoined) {
  make("blue");
  AttachRequest a = request("a");
  EXPECT_EQ(attach(a).attachment.names_path, "");
  EXPECT_EQ(own(a.container_id), "none");
  run(networks->connect("blue", a, {}));
  EXPECT_NE(networks->find_attachment(a.container_id)->names_path, "");
  EXPECT_NE(text(a.container_directory / "resolv.conf").find("nameserver 127.0.0.11"), std::string::npos);
  detach(a.container_id);
}

TEST_F(NamesOfNetworks, AnAttachThatCannotWriteNamesIsTakenBack) {
  make("blue");
  std::filesystem::remove_all(options.names_directory);
  sys::write_atomically(options.names_directory, "in the way", 0644, false);
  EXPECT_NE(failure_of(request("a", "blue")), "no failure");
  EXPECT_EQ(networks->find_attachment(request("a").container_id), nullptr);
  std::filesystem::remove(options.names_directory);
  EXPECT_EQ(failure_of(request("a", "blue")), "no failure");
  detach(request("a").container_id);
}

}  // namespace
}  // namespace gantry::network::test
