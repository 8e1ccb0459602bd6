import { expect, test } from "bun:test";
import { defaultConfig } from "../../../src/config/table.ts";
import { removeMetadataProtocol } from "../../../src/machine/firewall-legacy.ts";
import { installFakeIptables } from "../../fakes/iptables.ts";
import { createFakeSystem } from "../../fakes/system.ts";
import { plant } from "./support.ts";

test("wire-protocol.md DHCP-07: what the metadata protocol left goes, files and each rule as often as it is there, and nothing else", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  const address = "-d 169.254.169.254/32 -p tcp";
  const foreign = `${address} -j LOG`;
  const drop = `${address} -m conntrack --ctstate INVALID,NEW -j DROP`;
  const rules = [
    `${address} -m conntrack --ctstate INVALID,NEW -j ACCEPT`,
    `${address} -m tcp --dport 53 -j ACCEPT`,
    foreign,
    `${address} -m owner --uid-owner 0 -j ACCEPT`,
    drop,
    drop,
  ];
  table.chains.set("OUTPUT", [...rules]);
  await removeMetadataProtocol(system, defaultConfig(), 0);
  expect(table.chains.get("OUTPUT")).toEqual(rules);

  const directory = "/var/lib/waagent";
  plant(system, {
    [`${directory}/V2TransportCert.pem`]: "x",
    [`${directory}/V2TransportPrivate.pem`]: "x",
    [`${directory}/Certificates.p7b`]: "x",
    [`${directory}/TransportCert.pem`]: "x",
  });
  await removeMetadataProtocol(system, defaultConfig(), 0);
  expect(table.chains.get("OUTPUT")).toEqual([foreign]);
  expect(system.files.list(directory)).toEqual(["TransportCert.pem"]);
  expect(system.commands.every((argv) => argv[1] === "--version" || argv[1] === "-w")).toBe(true);
});
