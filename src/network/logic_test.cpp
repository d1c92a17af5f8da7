#include <gtest/gtest.h>

#include "base/error.hpp"
#include "network/files.hpp"
#include "network/ipam.hpp"
#include "network/network_options.hpp"
#include "network/networks.hpp"
#include "network/ports.hpp"

namespace gantry::network {
namespace {

template <class F>
std::string failure_of(F body) {
  try {
    body();
  } catch (const Error& e) {
    return e.message();
  }
  return "no failure";
}

TEST(IpAddress, ReadsAndWritesBothFamilies) {
  EXPECT_EQ(IpAddress::parse("172.17.0.2").str(), "172.17.0.2");
  EXPECT_EQ(IpAddress::parse("fd00::1").str(), "fd00::1");
  EXPECT_EQ(IpAddress::parse("::ffff:1.2.3.4").str(), "1.2.3.4");
  EXPECT_EQ(IpAddress::parse("::1").with_port(80), "[::1]:80");
  for (const char* bad : {"", "1.2.3", "1.2.3.4.5", "1.2.3.4/8", "[::1]", "a", "256.0.0.1"})
    EXPECT_FALSE(IpAddress::find(bad)) << bad;
}

TEST(Cidr, KnowsItsBounds) {
  const Cidr net = Cidr::parse("172.17.5.9/16");
  EXPECT_EQ(net.masked().str(), "172.17.0.0/16");
  EXPECT_EQ(net.last().str(), "172.17.255.255");
  EXPECT_TRUE(net.contains(IpAddress::parse("172.17.200.1")));
  EXPECT_FALSE(net.contains(IpAddress::parse("fd00::1")));
  EXPECT_TRUE(Cidr::parse("0.0.0.0/0").overlaps(net));
  EXPECT_EQ(Cidr::parse("::/0").last().str(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
  for (const char* bad : {"1.2.3.4", "1.2.3.4/33", "1.2.3.4/-1", "::/129", "1.2.3.4/x"}) EXPECT_FALSE(Cidr::find(bad));
}

TEST(MacAddress, ReadsWritesAndIsUnicast) {
  EXPECT_EQ(MacAddress::find("02:42:AC:11:00:02")->str(), "02:42:ac:11:00:02");
  EXPECT_FALSE(MacAddress::find("02:42:ac:11:00"));
  EXPECT_EQ(MacAddress::random().bytes[0] & 3, 2);
}

TEST(AddressRange, GivesTheLowestFreeAddress) {
  AddressRange range(Cidr::parse("10.0.0.0/29"), {});
  range.take(IpAddress::parse("10.0.0.1"));
  EXPECT_EQ(range.take_any("n", "id").str(), "10.0.0.2");
  EXPECT_EQ(range.take_any("n", "id").str(), "10.0.0.3");
  range.release(IpAddress::parse("10.0.0.2"));
  EXPECT_EQ(range.take_any("n", "id").str(), "10.0.0.2");
  EXPECT_EQ(failure_of([&] { range.take(IpAddress::parse("10.0.0.3")); }), "Address already in use");
  EXPECT_EQ(failure_of([&] { range.take(IpAddress::parse("10.0.1.3")); }),
            "no configured subnet contains IP address 10.0.1.3");
  for (int i = 0; i < 3; ++i) range.take_any("n", "id");
  EXPECT_EQ(failure_of([&] { range.take_any("n", "id"); }),
            "no available IPv4 addresses on this network's address pools: n (id)");
}

TEST(AddressRange, PointToPointSubnetsUseBothAddresses) {
  AddressRange range(Cidr::parse("10.0.0.0/31"), {});
  EXPECT_EQ(range.take_any("n", "id").str(), "10.0.0.0");
  EXPECT_EQ(range.take_any("n", "id").str(), "10.0.0.1");
}

TEST(AddressRange, StaysWithinItsPart) {
  AddressRange range(Cidr::parse("fd00::/64"), Cidr::parse("fd00::8000:0/126"));
  EXPECT_EQ(range.take_any("n", "id").str(), "fd00::8000:0");
  for (int i = 0; i < 3; ++i) range.take_any("n", "id");
  EXPECT_NE(failure_of([&] { range.take_any("n", "id"); }), "no failure");
}

TEST(SubnetPlan, DefaultPoolsHoldAThousandNetworks) {
  const SubnetPlan plan(default_address_pools());
  std::vector<Cidr> used;
  while (auto next = plan.find(Family::v4, used, {})) used.push_back(*next);
  EXPECT_GE(used.size(), 1000u);
  EXPECT_EQ(used[0].str(), "172.17.0.0/16");
  EXPECT_EQ(used[1].str(), "172.18.0.0/16");
}

TEST(SubnetPlan, StepsOverWhatIsInUse) {
  const SubnetPlan plan({{Cidr::parse("10.0.0.0/16"), 24}});
  EXPECT_EQ(plan.find(Family::v4, {Cidr::parse("10.0.0.0/24")}, {Cidr::parse("10.0.1.128/25")})->str(), "10.0.2.0/24");
  EXPECT_EQ(plan.find(Family::v4, {}, {Cidr::parse("10.0.0.0/17")})->str(), "10.0.128.0/24");
  EXPECT_EQ(plan.find(Family::v4, {}, {}, 20)->str(), "10.0.0.0/20");
  EXPECT_FALSE(plan.find(Family::v4, {}, {Cidr::parse("10.0.0.0/8")}));
  EXPECT_FALSE(plan.find(Family::v6, {}, {}));
}

TEST(ValidateIpam, JoinsAllFindings) {
  const IpamConfig bad{"10.0.0.5/24", "10.1.0.0/16", "10.9.0.1", {}};
  EXPECT_EQ(failure_of([&] { validate_ipam({bad}, false); }),
            "invalid network config:\n* invalid subnet 10.0.0.5/24: it should be 10.0.0.0/24\n* invalid ip-range "
            "10.1.0.0/16: CIDR block is bigger than its parent subnet 10.0.0.5/24\n* invalid gateway 10.9.0.1: parent "
            "subnet 10.0.0.5/24 doesn't contain this address");
}

TEST(NetworkOptions, DefaultsFillOnlyWhatIsMissing) {
  NetworkSpec spec;
  spec.options = {{"com.docker.network.driver.mtu", "1450"}, {"com.docker.network.enable_ipv6", "true"}};
  spec.enable_ipv6 = false;
  apply_default_options(spec, {{"bridge",
                                {{"com.docker.network.driver.mtu", "1350"},
                                 {"com.docker.network.enable_ipv4", "false"},
                                 {"com.docker.network.bridge.enable_icc", "false"}}},
                               {"macvlan", {{"parent", "eth0"}}}});
  EXPECT_EQ(spec.options.at("com.docker.network.driver.mtu"), "1450");
  EXPECT_EQ(spec.options.at("com.docker.network.bridge.enable_icc"), "false");
  EXPECT_EQ(spec.options.count("parent"), 0u);
  EXPECT_EQ(spec.enable_ipv4, false);
  EXPECT_EQ(spec.enable_ipv6, false);
  EXPECT_EQ(spec.options.count("com.docker.network.enable_ipv6"), 0u);  // the field has won
  NetworkSpec wrong;
  wrong.options = {{"com.docker.network.enable_ipv4", "perhaps"}};
  EXPECT_EQ(failure_of([&] { apply_default_options(wrong, {}); }),
            "failed to parse com.docker.network.enable_ipv4 value: perhaps (strconv.ParseBool: parsing \"perhaps\": "
            "invalid syntax)");
}

TEST(NetworkOptions, VlanInterfacesNameTheirParent) {
  EXPECT_EQ(parse_vlan_interface("eth0.10"), std::pair(std::string("eth0"), 10));
  EXPECT_EQ(failure_of([] { parse_vlan_interface("eth0.4095"); }), "vlan id must be between 1-4094, received: 4095");
  EXPECT_EQ(failure_of([] { parse_vlan_interface("eth0.x"); }),
            "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)");
  EXPECT_EQ(failure_of([] { parse_vlan_options("ipvlan", {{"ipvlan_mode", "bridge"}}); }),
            "requested ipvlan mode 'bridge' is not valid, 'l2' mode is the ipvlan driver default");
  EXPECT_EQ(parse_vlan_options("macvlan", {{"parent", "eth1"}}).mode, "bridge");
}

TEST(NetworkOptions, EndpointSysctlsCannotLeaveTheirPlace) {
  EndpointSettings settings;
  settings.driver_opts[kSysctlsOption] = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.accept_ra=0";
  EXPECT_TRUE(endpoint_option_findings(settings).empty());
  const auto paths = endpoint_sysctls(settings.driver_opts[kSysctlsOption], "eth1");
  ASSERT_EQ(paths.size(), 2u);
  EXPECT_EQ(paths[0], std::pair(std::string("net/ipv4/conf/eth1/log_martians"), std::string("1")));
  for (const char* bad :
       {"net.ipv4.ip_forward=1", "net.ipv4.conf.IFNAME.a/../../x=1", "net.ipv4.conf.IFNAME.forwarding",
        "kernel.ipv4.conf.IFNAME.x=1", "net.ipv4.conf.eth0.forwarding=1", ""}) {
    settings.driver_opts[kSysctlsOption] = bad;
    EXPECT_EQ(endpoint_option_findings(settings).size(), 1u) << bad;
  }
  settings.driver_opts = {{kInterfaceOption, "eth/0"}};
  EXPECT_EQ(join_findings(endpoint_option_findings(settings)), "invalid interface name: \"eth/0\"");
}

TEST(PlanPorts, PutsExactPortsFirst) {
  const PortMap bindings{{"80/tcp", {{"", ""}}}, {"81/tcp", {{"", "9000-9010"}}}, {"82/tcp", {{"127.0.0.1", "9000"}}}};
  const auto plan = plan_ports(bindings, {"83/udp"}, true, "", true);
  ASSERT_EQ(plan.size(), 4u);
  EXPECT_EQ(plan[0].container_port, 82);
  EXPECT_EQ(plan[0].host_ips.size(), 1u);
  EXPECT_EQ(plan[1].container_port, 81);
  EXPECT_EQ(plan[1].last, 9010);
  EXPECT_EQ(plan[2].host_ips.size(), 2u);
  EXPECT_EQ(plan[3].proto, "udp");
  EXPECT_THROW(plan_ports({{"80/xyz", {}}}, {}, false, "", true), Error);
  EXPECT_THROW(plan_ports({{"80/tcp", {{"", "99999"}}}}, {}, false, "", true), Error);
  EXPECT_THROW(plan_ports({{"80/tcp", {{"nohost", "80"}}}}, {}, false, "", true), Error);
}

TEST(PortAllocator, KnowsWhatOverlaps) {
  PortAllocator ports({42000, 42003, {42001}});
  PortRequest any{"tcp", 80, {IpAddress::any(Family::v4)}, 0, 0};
  EXPECT_EQ(ports.allocate(any)[0].host_port, 42000);
  EXPECT_EQ(ports.allocate(any)[0].host_port, 42002);
  EXPECT_EQ(ports.allocate(any)[0].host_port, 42003);
  EXPECT_EQ(failure_of([&] { ports.allocate(any); }), "all ports are allocated");
  PortRequest loopback{"tcp", 80, {IpAddress::parse("127.0.0.1")}, 42002, 42002};
  EXPECT_EQ(failure_of([&] { ports.allocate(loopback); }),
            "Bind for 127.0.0.1:42002 failed: port is already allocated");
  PortRequest udp{"udp", 80, {IpAddress::any(Family::v4)}, 42002, 42002};
  EXPECT_EQ(ports.allocate(udp).size(), 1u);
  ports.release("tcp", IpAddress::any(Family::v4), 42002);
  EXPECT_EQ(ports.allocate(loopback).size(), 1u);
}

TEST(ResolvConf, DropsTheHostsLoopbackServers) {
  ResolvSettings settings;
  settings.host_path = "/etc/resolv.conf";
  settings.host_text =
      "nameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nsearch a b\noptions edns0\n";
  const std::string text = render_resolv_conf(settings);
  EXPECT_NE(text.find("\nnameserver 10.0.0.1\nsearch a b\noptions edns0\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("127.0.0.53"), std::string::npos);
  settings.host_text = "nameserver 127.0.0.53\n";
  EXPECT_NE(render_resolv_conf(settings).find("nameserver 8.8.8.8\nnameserver 8.8.4.4\n"), std::string::npos);
  settings.servers = {"127.0.0.1"};
  settings.search = {"."};
  EXPECT_NE(render_resolv_conf(settings).find("nameserver 127.0.0.1\n"), std::string::npos);
  settings.internal = true;
  const std::string internal = render_resolv_conf(settings);
  EXPECT_NE(internal.find("nameserver 127.0.0.11\noptions ndots:0\n"), std::string::npos) << internal;
  EXPECT_NE(internal.find("# ExtServers: [127.0.0.1]"), std::string::npos) << internal;
}

TEST(Hosts, ExtraHostsTakeBothSeparators) {
  const auto lines = parse_extra_hosts({"a:1.2.3.4", "b=::1", "c:[fd00::1]", "d:host-gateway"}, {"172.17.0.1"});
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[1].address, "::1");
  EXPECT_EQ(lines[2].address, "fd00::1");
  EXPECT_EQ(lines[3].address, "172.17.0.1");
  EXPECT_THROW(parse_extra_hosts({"nothing"}, {}), Error);
  EXPECT_THROW(parse_extra_hosts({"a:b"}, {}), Error);
  EXPECT_EQ(own_names("web", "example.org"), (std::vector<std::string>{"web.example.org", "web"}));
}

}  // namespace
}  // namespace gantry::network
