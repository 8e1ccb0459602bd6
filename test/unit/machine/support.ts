import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { FakeSystem } from "../../fakes/system.ts";

/** Files of the fake machine, parents made; for sysfs and procfs trees. */
export function plant(system: FakeSystem, files: Readonly<Record<string, string>>): void {
  for (const [file, content] of Object.entries(files)) {
    const real = path.join(system.root.directory, file);
    mkdirSync(path.dirname(real), { recursive: true });
    writeFileSync(real, content);
  }
}

export function plantLink(system: FakeSystem, file: string, target: string): void {
  const real = path.join(system.root.directory, file);
  mkdirSync(path.dirname(real), { recursive: true });
  symlinkSync(target, real);
}

/** /proc/net/route with the kernel's header. Addresses in the kernel's little-endian hex. */
export function routeTable(
  ...rows: readonly (readonly [
    name: string,
    destination: string,
    gateway: string,
    flags: string,
    metric: string,
    mask: string,
  ])[]
): string {
  const lines = rows.map(([name, destination, gateway, flags, metric, mask]) =>
    [name, destination, gateway, flags, "0", "0", metric, mask, "0", "0", "0"].join("\t"),
  );
  const header =
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
  return `${[header, ...lines].join("\n")}\n`;
}

export function plantInterface(
  system: FakeSystem,
  name: string,
  options: { readonly flags?: string; readonly mac?: string; readonly driver?: string } = {},
): void {
  plant(system, {
    [`/sys/class/net/${name}/flags`]: `${options.flags ?? "0x1003"}\n`,
    [`/sys/class/net/${name}/address`]: `${options.mac ?? "00:0d:3a:11:22:33"}\n`,
    [`/sys/class/net/${name}/operstate`]: "up\n",
  });
  if (options.driver !== undefined)
    plantLink(
      system,
      `/sys/class/net/${name}/device/driver`,
      `../../bus/drivers/${options.driver}`,
    );
}

/** `ip -j address show` with one IPv4 address for each name. */
export function ipJson(addresses: Readonly<Record<string, string>>): string {
  return JSON.stringify([
    {},
    ...Object.entries(addresses).map(([ifname, local]) => ({
      ifname,
      addr_info: [
        { family: "inet", local, prefixlen: 24 },
        { family: "inet6", local: "fe80::1", prefixlen: 64 },
      ],
    })),
  ]);
}
