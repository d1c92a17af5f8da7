#include "network/networks.hpp"

#include "base/failpoint.hpp"
#include "db/network_rows.hpp"
#include "network/ports.hpp"
#include "network/world_for_test.hpp"
#include "sys/nftables.hpp"

namespace gantry::network::test {
namespace {

class DefaultBridge : public World {
 protected:
  void SetUp() override { recover(); }
  std::size_t elements(const std::string& set) {
    sys::NftSocket socket;
    return socket.list_elements(sys::NftFamily::ip, options.table_name, set).size();
  }
};

TEST_F(DefaultBridge, PredefinedNetworksAreThereAfterRecover) {
  const auto all = networks->list();
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].name, "bridge");
  EXPECT_EQ(all[0].driver, "bridge");
  EXPECT_EQ(all[0].id.size(), 64u);
  EXPECT_EQ(all[0].ipam.at(0).subnet, "172.17.0.0/16");
  EXPECT_EQ(all[0].ipam.at(0).gateway, "172.17.0.1");
  EXPECT_EQ(all[0].options.at("com.docker.network.bridge.name"), "gt0");
  EXPECT_EQ(all[1].driver, "host");
  EXPECT_EQ(all[2].driver, "null");
  EXPECT_EQ(networks->get(all[0].id.substr(0, 10)).name, "bridge");
  EXPECT_THROW(networks->get("nonet"), Error);
  const std::string link = shell("ip addr show gt0");
  EXPECT_NE(link.find("172.17.0.1/16"), std::string::npos) << link;
  EXPECT_EQ(shell("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
}

TEST_F(DefaultBridge, RecoverTwiceChangesNothing) {
  const std::string id = networks->get("bridge").id;
  const std::string mac = shell("cat /sys/class/net/gt0/address");
  const RecoverReport second = recover();
  EXPECT_TRUE(second.repaired.empty());
  EXPECT_TRUE(second.problems.empty());
  restart();
  recover();
  EXPECT_EQ(networks->get("bridge").id, id);
  EXPECT_EQ(shell("cat /sys/class/net/gt0/address"), mac);
}

TEST_F(DefaultBridge, RulesetReadsBackAsTheDesignSaysIt) {
  const std::string text = shell("nft list table ip gantry-test");
  for (const char* line : {
           "dnat ip to ip daddr . meta l4proto . th dport map @pub_ip",
           "dnat ip to meta l4proto . th dport map @pub_any",
           "iifname != \"lo\" ip daddr 127.0.0.0/8 counter packets 0 bytes 0 drop",
           "fib daddr type local jump do_dnat",
           "ip daddr != 127.0.0.0/8 fib daddr type local jump do_dnat",
           "iifname . oifname @hairpin masquerade",
           "snat to iifname map @snatbr",
           "oifname vmap @in_br",
           "elements = { \"gt0\" : jump in_nat }",
           "elements = { 172.17.0.0/16 }",
       })
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
}

TEST_F(DefaultBridge, OthersCannotFlushTheTables) {
  shell("nft flush ruleset; nft delete table ip gantry-test");
  sys::NftSocket socket;
  auto table = socket.find_table(sys::NftFamily::ip, "gantry-test");
  ASSERT_TRUE(table.has_value());
  EXPECT_TRUE(table->flags.owner);
  EXPECT_TRUE(table->flags.persist);
  EXPECT_EQ(elements("in_br"), 1u);
}

TEST_F(DefaultBridge, TwoEnginesLiveSideBySide) {
  Options other = options;
  other.bridge_name = "gt1";
  other.table_name = "gantry-other";
  other.netns_directory = directory / "other-netns";
  db::Db other_db(directory / "other.db");
  Networks second(other, other_db, lanes, loop.get_executor());
  EXPECT_TRUE(run(second.recover({})).problems.empty());
  EXPECT_EQ(second.get("bridge").ipam.at(0).subnet, "172.18.0.0/16");
  recover();
  EXPECT_NE(shell("ip link show gt1").find("UP"), std::string::npos);
  run(second.stop());
  other.table_name = options.table_name;  // in use by the first
  Networks third(other, other_db, lanes, loop.get_executor());
  EXPECT_THROW(run(third.recover({})), Error);
  shell("ip link del gt1");
}

TEST_F(DefaultBridge, AttachGivesAddressFilesAndNamespace) {
  AttachRequest web = request("web");
  web.exposed_ports = {"80/tcp", "81/tcp"};
  web.port_bindings = {{"80/tcp", {{"", "18080"}}}};
  web.extra_hosts = {"db:10.0.0.9", "gw:host-gateway"};
  const AttachResult result = attach(web);
  const Attachment& shown = result.attachment;
  ASSERT_EQ(shown.endpoints.size(), 1u);
  EXPECT_EQ(shown.endpoints[0].ip_address, "172.17.0.2");
  EXPECT_EQ(shown.endpoints[0].ip_prefix_length, 16u);
  EXPECT_EQ(shown.endpoints[0].gateway, "172.17.0.1");
  EXPECT_EQ(shown.endpoints[0].network_name, "bridge");
  EXPECT_EQ(shown.endpoints[0].interface_name, "eth0");
  EXPECT_TRUE(sys::is_netns(shown.netns_path));
  const PortMap ports{{"80/tcp", {{"0.0.0.0", "18080"}, {"::", "18080"}}}, {"81/tcp", {}}};
  EXPECT_EQ(shown.ports, ports);
  ASSERT_EQ(result.sockets.size(), 2u);
  EXPECT_TRUE(result.sockets[0].relay);
  EXPECT_EQ(result.sockets[0].container_ip, "172.17.0.2");

  const std::string hosts = sys::read_file(web.container_directory / "hosts");
  EXPECT_NE(hosts.find("127.0.0.1\tlocalhost\n"), std::string::npos);
  EXPECT_NE(hosts.find("10.0.0.9\tdb\n172.17.0.1\tgw\n172.17.0.2\tweb000000000\n"), std::string::npos) << hosts;
  EXPECT_EQ(sys::read_file(web.container_directory / "hostname"), "web000000000\n");
  EXPECT_NE(sys::read_file(web.container_directory / "resolv.conf").find("nameserver "), std::string::npos);
  sys::enter_netns(shown.netns_path, [&] {
    const std::string inside = shell("ip addr; ip route; cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6");
    EXPECT_NE(inside.find("172.17.0.2/16"), std::string::npos) << inside;
    EXPECT_NE(inside.find("default via 172.17.0.1 dev eth0"), std::string::npos) << inside;
    EXPECT_NE(inside.find("link/ether " + shown.endpoints[0].mac_address), std::string::npos) << inside;
    EXPECT_EQ(inside.find("inet6 fe80"), std::string::npos) << inside;
    EXPECT_EQ(inside.substr(inside.size() - 2), "1\n");
  });
  ASSERT_EQ(networks->get("bridge").members.size(), 1u);
  EXPECT_EQ(networks->get("bridge").members[0].ipv4_address, "172.17.0.2/16");

  detach(web.container_id);
  EXPECT_EQ(networks->find_attachment(web.container_id), nullptr);
  EXPECT_FALSE(sys::is_netns(shown.netns_path));
  EXPECT_EQ(elements("pub_any"), 0u);
  EXPECT_EQ(elements("open"), 0u);
  EXPECT_TRUE(networks->get("bridge").members.empty());
  detach(web.container_id);
}

// With and without br_netfilter, which sends bridged packets through the IP hooks.
class Reachability : public DefaultBridge, public ::testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(BridgeNetfilter, Reachability, ::testing::Values("0", "1"));

TEST_P(Reachability, PublishedPortsAreReachableAndOthersAreNot) {
  shell(std::string("echo ") + GetParam() + " > /proc/sys/net/bridge/bridge-nf-call-iptables");
  const sys::Path neighbour = add_neighbour();
  AttachRequest web = request("web");
  web.port_bindings = {{"80/tcp", {{"", "18080"}}},
                       {"80/udp", {{"0.0.0.0", "18080"}}},
                       {"82/tcp", {{"127.0.0.1", "18082"}}},
                       {"83/tcp", {{"10.200.0.1", "18083"}}}};
  const AttachResult result = attach(web);
  const AttachResult other = attach(request("other"));
  const sys::Path inside = result.attachment.netns_path;
  Server tcp80(inside, SOCK_STREAM, 80), udp80(inside, SOCK_DGRAM, 80), tcp81(inside, SOCK_STREAM, 81),
      tcp82(inside, SOCK_STREAM, 82), tcp83(inside, SOCK_STREAM, 83);
  Server outside(neighbour, SOCK_STREAM, 9000);

  EXPECT_EQ(ask(neighbour, "10.200.0.1", 18080), "peer=10.200.0.2");
  EXPECT_EQ(ask(neighbour, "10.200.0.1", 18080, SOCK_DGRAM), "peer=10.200.0.2");
  EXPECT_EQ(ask(neighbour, "10.200.0.1", 18083), "peer=10.200.0.2");
  EXPECT_EQ(ask(neighbour, "10.200.0.1", 18082), "");  // published on loopback only
  EXPECT_EQ(ask(neighbour, "172.17.0.2", 80), "");     // around the translation
  EXPECT_EQ(ask(neighbour, "172.17.0.2", 81), "");     // not published at all
  EXPECT_EQ(ask("", "10.200.0.1", 18080), "peer=10.200.0.1");
  EXPECT_EQ(ask("", "172.17.0.2", 81), "peer=172.17.0.1");
  EXPECT_EQ(ask(inside, "10.200.0.1", 18080), "peer=172.17.0.1");                    // its own port: hairpin
  EXPECT_NE(ask(other.attachment.netns_path, "10.200.0.1", 18080), "");              // a neighbour on the bridge
  EXPECT_EQ(ask(other.attachment.netns_path, "172.17.0.2", 81), "peer=172.17.0.3");  // icc
  EXPECT_EQ(ask(inside, "10.200.0.2", 9000), "peer=10.200.0.1");                     // masqueraded

  detach(web.container_id);
  EXPECT_EQ(ask(neighbour, "10.200.0.1", 18080), "");
  remove_neighbour();
}

TEST_F(DefaultBridge, WithoutIccContainersDoNotReachEachOther) {
  options.icc = false;
  restart();
  recover();
  const AttachResult a = attach(request("a"));
  const AttachResult b = attach(request("b"));
  Server server(a.attachment.netns_path, SOCK_STREAM, 80);
  EXPECT_EQ(ask("", "172.17.0.2", 80), "peer=172.17.0.1");
  EXPECT_EQ(ask(b.attachment.netns_path, "172.17.0.2", 80), "");
}

TEST_F(DefaultBridge, PortConflictsHaveDockersTexts) {
  AttachRequest a = request("a");
  a.port_bindings = {{"80/tcp", {{"0.0.0.0", "18090"}}}};
  attach(a);
  AttachRequest b = request("b");
  b.port_bindings = {{"80/tcp", {{"", "18090"}}}};
  const std::string text = failure_of(b);
  EXPECT_EQ(text.rfind("failed to set up container networking: driver failed programming external connectivity on "
                       "endpoint b (",
                       0),
            0u)
      << text;
  EXPECT_NE(text.find("): Bind for 0.0.0.0:18090 failed: port is already allocated"), std::string::npos) << text;
  EXPECT_EQ(networks->find_attachment(b.container_id), nullptr);

  BoundPort taken = bind_host_port("tcp", IpAddress::any(Family::v4), 18091);
  ASSERT_EQ(taken.error, 0);
  b.port_bindings = {{"80/tcp", {{"0.0.0.0", "18091"}}}};
  EXPECT_NE(failure_of(b).find("failed to bind host port 0.0.0.0:18091/tcp: address already in use"),
            std::string::npos);
  b.port_bindings.clear();
  EXPECT_EQ(attach(b).attachment.endpoints[0].ip_address, "172.17.0.3");
}

TEST_F(DefaultBridge, UnknownNetworkAndDeadDonorHaveDockersTexts) {
  EXPECT_EQ(failure_of(request("a", "nonet")), "network nonet not found");
  EXPECT_NE(failure_of(request("a", "container:" + std::string(64, 'f')))
                .find("cannot join network namespace of a non running container"),
            std::string::npos);
}

TEST_F(DefaultBridge, OtherModes) {
  const AttachResult none = attach(request("none", "none"));
  EXPECT_TRUE(none.attachment.endpoints.empty());
  sys::enter_netns(none.attachment.netns_path, [] {
    sys::NetlinkSocket socket(NETLINK_ROUTE);
    std::vector<std::string> up;
    for (const auto& link : sys::list_links(socket))
      if (link.up) up.push_back(link.name);
    EXPECT_EQ(up, std::vector<std::string>{"lo"});
  });
  AttachRequest with_ports = request("host", "host");
  with_ports.port_bindings = {{"80/tcp", {{"", "80"}}}};
  const AttachResult host = attach(with_ports);
  EXPECT_EQ(host.attachment.kind, SandboxKind::host);
  EXPECT_EQ(host.attachment.netns_path, "");
  ASSERT_EQ(host.warnings.size(), 1u);
  const AttachResult web = attach(request("web"));
  const AttachResult joined = attach(request("joined", "container:" + web.attachment.container_id));
  EXPECT_EQ(joined.attachment.kind, SandboxKind::joined);
  EXPECT_EQ(joined.attachment.netns_path, web.attachment.netns_path);
  detach(joined.attachment.container_id);
  EXPECT_TRUE(sys::is_netns(web.attachment.netns_path));
}

TEST_F(DefaultBridge, TwoHundredContainersLeaveNothing) {
  using Clock = std::chrono::steady_clock;
  Clock::duration attaching{}, detaching{};
  constexpr int kRounds = 200;
  for (int i = 0; i < kRounds; ++i) {
    AttachRequest one = request("c" + std::to_string(i));
    one.port_bindings = {{"80/tcp", {{"", ""}}}, {"53/udp", {{"", ""}}}};
    const auto start = Clock::now();
    const AttachResult result = attach(one);
    const auto attached = Clock::now();
    detach(one.container_id);
    detaching += Clock::now() - attached;
    attaching += attached - start;
    ASSERT_EQ(result.attachment.endpoints[0].ip_address, "172.17.0.2");
  }
  auto mean = [](Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count() / kRounds; };
  std::printf("attach %.2f ms, detach %.2f ms (mean of %d, two published ports)\n", mean(attaching), mean(detaching),
              kRounds);
  EXPECT_TRUE(sys::list_directory(options.netns_directory).empty());
  for (const char* set : {"pub_any", "pub_ip", "open"}) EXPECT_EQ(elements(set), 0u);
  EXPECT_TRUE(db::load_endpoints(*db).empty());
  EXPECT_TRUE(db::load_sandboxes(*db).empty());
  // The kernel removes the interfaces of dead namespaces in its own time.
  sys::NetlinkSocket socket(NETLINK_ROUTE);
  EXPECT_TRUE(spin([&] {
    for (const auto& link : sys::list_links(socket))
      if (link.kind == "veth") return false;
    return true;
  }));
}

TEST_F(DefaultBridge, RunningContainersKeepEverythingOverARestart) {
  const sys::Path neighbour = add_neighbour();
  AttachRequest web = request("web");
  web.port_bindings = {{"80/tcp", {{"0.0.0.0", "18080"}}}};
  AttachResult result = attach(web);
  Server server(result.attachment.netns_path, SOCK_STREAM, 80);
  attach(request("dead"));
  restart();
  EXPECT_EQ(ask(neighbour, "10.200.0.1", 18080), "peer=10.200.0.2");  // while the daemon is away
  const RecoverReport report = recover({web.container_id});
  EXPECT_TRUE(report.problems.empty());
  const Attachment* shown = networks->find_attachment(web.container_id);
  ASSERT_NE(shown, nullptr);
  EXPECT_EQ(shown->endpoints[0].ip_address, "172.17.0.2");
  EXPECT_EQ(shown->ports.at("80/tcp").at(0).host_port, "18080");
  EXPECT_EQ(ask(neighbour, "10.200.0.1", 18080), "peer=10.200.0.2");
  EXPECT_EQ(networks->find_attachment(request("dead").container_id), nullptr);
  EXPECT_EQ(sys::list_directory(options.netns_directory).size(), 1u);
  EXPECT_EQ(attach(request("next")).attachment.endpoints[0].ip_address, "172.17.0.3");
  remove_neighbour();
}

TEST_F(DefaultBridge, NetworksWithAdjacentSubnetsComeBack) {
  for (const char* name : {"one", "two"}) {
    NetworkSpec spec;
    spec.name = name;
    run(networks->create_network(spec));
  }
  // One subnet begins where the one before ends.
  EXPECT_EQ(networks->get("bridge").ipam.at(0).subnet, "172.17.0.0/16");
  EXPECT_EQ(networks->get("one").ipam.at(0).subnet, "172.18.0.0/16");
  restart();
  EXPECT_TRUE(recover().problems.empty());
  EXPECT_TRUE(networks->find("two"));
}

TEST_F(DefaultBridge, RowsWithoutKernelObjectsAreRebuilt) {
  const sys::Path neighbour = add_neighbour();
  AttachRequest web = request("web");
  web.port_bindings = {{"80/tcp", {{"0.0.0.0", "18080"}}}};
  AttachResult result = attach(web);
  Server server(result.attachment.netns_path, SOCK_STREAM, 80);
  restart();
  shell("nft delete table ip gantry-test; nft delete table ip6 gantry-test; ip link del gt0");
  EXPECT_EQ(ask(neighbour, "10.200.0.1", 18080), "");
  const RecoverReport report = recover({web.container_id});
  EXPECT_FALSE(report.repaired.empty());
  EXPECT_EQ(ask(neighbour, "10.200.0.1", 18080), "peer=10.200.0.2");
  remove_neighbour();
}

TEST_F(DefaultBridge, KernelObjectsWithoutRowsAreSwept) {
  const AttachResult web = attach(request("web"));
  db::remove_sandbox(*db, web.attachment.container_id);
  restart();
  const RecoverReport report = recover();
  EXPECT_FALSE(sys::is_netns(web.attachment.netns_path));
  EXPECT_FALSE(report.repaired.empty());
  sys::NetlinkSocket socket(NETLINK_ROUTE);
  EXPECT_TRUE(spin([&] { return !sys::find_link(socket, web.attachment.endpoints[0].host_interface); }));
}

TEST_F(DefaultBridge, DeletedBridgeComesBackWithItsPorts) {
  const AttachResult web = attach(request("web"));
  Server server(web.attachment.netns_path, SOCK_STREAM, 80);
  const std::string mac = shell("cat /sys/class/net/gt0/address");
  const auto start = std::chrono::steady_clock::now();
  shell("ip link del gt0");
  EXPECT_TRUE(spin([&] {
    for (const auto& event : events)
      if (event.action == "heal" && event.detail.find("connected") != std::string::npos) return true;
    return false;
  }));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));  // two, unless the machine is busy
  EXPECT_EQ(shell("cat /sys/class/net/gt0/address"), mac);
  EXPECT_EQ(ask("", "172.17.0.2", 80), "peer=172.17.0.1");
}

TEST_F(DefaultBridge, FailedAttachLeavesNothing) {
  AttachRequest web = request("web");
  web.port_bindings = {{"80/tcp", {{"", "18080"}}}};
  EndpointSettings settings;
  settings.driver_opts["com.docker.network.endpoint.sysctls"] = "net.ipv4.conf.IFNAME.nonsense=1";
  web.networks["bridge"] = settings;
  EXPECT_NE(failure_of(web).find("failed to set up container networking: "), std::string::npos);
  EXPECT_TRUE(db::load_sandboxes(*db).empty());
  EXPECT_TRUE(sys::list_directory(options.netns_directory).empty());
  web.networks.clear();
  EXPECT_EQ(attach(web).attachment.endpoints[0].ip_address, "172.17.0.2");
}

TEST_F(DefaultBridge, AttachAndDetachInterruptedAnywhereLeaveNothing) {
  for (const char* point : {"network.attach.after_row", "network.sandbox.after_veth", "network.attach.after_sandbox",
                            "network.attach.after_kernel"}) {
    AttachRequest web = request("web");
    web.port_bindings = {{"80/tcp", {{"", "18080"}}}};
    arm_failpoints(std::string(point) + "=error");
    EXPECT_NE(failure_of(web), "no failure") << point;
    arm_failpoints("");
    EXPECT_TRUE(db::load_sandboxes(*db).empty()) << point;
    EXPECT_TRUE(sys::list_directory(options.netns_directory).empty()) << point;
    EXPECT_EQ(elements("pub_any"), 0u) << point;
    EXPECT_EQ(attach(web).attachment.endpoints[0].ip_address, "172.17.0.2") << point;
    detach(web.container_id);
  }
  for (const char* point : {"network.detach.after_unpublish", "network.detach.after_kernel"}) {
    AttachRequest web = request("web");
    web.port_bindings = {{"80/tcp", {{"", "18080"}}}};
    attach(web);
    arm_failpoints(std::string(point) + "=error");
    EXPECT_THROW(detach(web.container_id), Error) << point;
    arm_failpoints("");
    detach(web.container_id);
    EXPECT_TRUE(db::load_sandboxes(*db).empty()) << point;
    EXPECT_EQ(attach(web).attachment.endpoints[0].ip_address, "172.17.0.2") << point;
    arm_failpoints(std::string(point) + "=error");
    EXPECT_THROW(detach(web.container_id), Error) << point;
    arm_failpoints("");
    restart();
    recover();
    EXPECT_TRUE(db::load_sandboxes(*db).empty()) << point;
    EXPECT_TRUE(sys::list_directory(options.netns_directory).empty()) << point;
  }
}

TEST_F(DefaultBridge, UserDefinedNetworksAreIsolatedAndComeAndGo) {
  NetworkSpec spec;
  spec.name = "backend";
  const auto created = run(networks->create_network(spec));
  EXPECT_EQ(networks->get("backend").ipam.at(0).subnet, "172.18.0.0/16");
  EXPECT_THROW(run(networks->create_network(spec)), Error);
  spec.name = "fixed";
  spec.ipam = {{"10.77.0.0/24", "", "10.77.0.254", {}}};
  run(networks->create_network(spec));
  spec.name = "overlap";
  EXPECT_THROW(run(networks->create_network(spec)), Error);

  AttachRequest a = request("a", "backend");
  a.networks["fixed"].ipv4_address = "10.77.0.9";
  a.port_bindings = {{"80/tcp", {{"", "18080"}}}};
  const AttachResult attached = attach(a);
  ASSERT_EQ(attached.attachment.endpoints.size(), 2u);
  EXPECT_EQ(attached.attachment.endpoints[0].ip_address, "172.18.0.2");
  EXPECT_EQ(attached.attachment.endpoints[1].ip_address, "10.77.0.9");
  EXPECT_EQ(attached.attachment.endpoints[1].interface_name, "eth1");
  EXPECT_THROW(run(networks->remove_network("backend")), Error);

  AttachRequest b = request("b");
  const AttachResult other = attach(b);
  Server server(attached.attachment.netns_path, SOCK_STREAM, 80);
  EXPECT_EQ(ask(other.attachment.netns_path, "172.18.0.2", 80), "");
  const Endpoint joined = run(networks->connect("backend", b, EndpointSettings{}));
  EXPECT_EQ(joined.ip_address, "172.18.0.3");
  EXPECT_EQ(joined.interface_name, "eth1");
  EXPECT_EQ(ask(other.attachment.netns_path, "172.18.0.2", 80), "peer=172.18.0.3");
  EXPECT_NE(sys::read_file(b.container_directory / "hosts").find("172.18.0.3\t"), std::string::npos);
  run(networks->disconnect("backend", b.container_id, false));
  EXPECT_EQ(sys::read_file(b.container_directory / "hosts").find("172.18.0.3\t"), std::string::npos);
  EXPECT_EQ(ask(other.attachment.netns_path, "172.18.0.2", 80), "");
  EXPECT_EQ(networks->find_attachment(b.container_id)->endpoints.size(), 1u);

  // The ports move with the gateway.
  run(networks->disconnect("backend", a.container_id, false));
  EXPECT_EQ(networks->find_attachment(a.container_id)->ports.at("80/tcp").size(), 2u);
  detach(a.container_id);
  run(networks->remove_network("backend"));
  run(networks->remove_network("fixed"));
  EXPECT_EQ(networks->list().size(), 3u);
  EXPECT_EQ(shell("ip -o link show type bridge | wc -l"), "1\n");
  EXPECT_EQ(created.id.size(), 64u);
}

TEST_F(DefaultBridge, Ipv6NetworksWorkEndToEnd) {
  NetworkSpec spec;
  spec.name = "six";
  spec.enable_ipv6 = true;
  run(networks->create_network(spec));
  const NetworkInfo info = networks->get("six");
  ASSERT_EQ(info.ipam.size(), 2u);
  EXPECT_EQ(info.ipam[1].subnet.substr(0, 2), "fd");
  AttachRequest a = request("a", "six");
  a.port_bindings = {{"80/tcp", {{"", "18080"}}}};
  const AttachResult result = attach(a);
  EXPECT_EQ(result.attachment.endpoints[0].ipv6_prefix_length, 64u);
  Server server(result.attachment.netns_path, SOCK_STREAM, 80);
  EXPECT_NE(ask("", result.attachment.endpoints[0].ipv6_address, 80), "");
  EXPECT_NE(ask("", result.attachment.endpoints[0].ipv6_gateway, 18080), "");  // translated
  detach(a.container_id);
  run(networks->remove_network("six"));
}

TEST_F(DefaultBridge, DefaultBridgeAvoidsRoutesInUse) {
  const sys::Path neighbour = add_neighbour();
  shell("ip route add 172.16.0.0/12 via 10.200.0.2");
  NetworkSpec spec;
  spec.name = "away";
  run(networks->create_network(spec));
  EXPECT_EQ(networks->get("away").ipam.at(0).subnet, "192.168.0.0/24");
  run(networks->remove_network("away"));
  remove_neighbour();
}

}  // namespace
}  // namespace gantry::network::test
