import { expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import { imageOrigin } from "../../../src/azure/image-origin.ts";
import {
  checkImds,
  getImds,
  parseCompute,
  readCompute,
  validateInstance,
  type ImdsOutcome,
} from "../../../src/azure/imds.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const COMPUTE = {
  location: "westus",
  name: "vm",
  offer: "UbuntuServer",
  osType: "Linux",
  placementGroupId: "",
  platformFaultDomain: "0",
  platformUpdateDomain: "1",
  publisher: "Canonical",
  resourceGroupName: "r\u00e9sum\u00e9",
  sku: "22.04-LTS",
  subscriptionId: "s",
  tags: "",
  version: "1",
  vmId: "i",
  vmSize: "z",
  vmScaleSetName: "",
  zone: "",
};
const INSTANCE = {
  compute: {},
  network: {
    interface: [{ macAddress: "000D3A", ipv4: { ipAddress: [{ privateIpAddress: "10.0.0.4" }] } }],
  },
};

test("wire-protocol.md IMDS-01 IMDS-02 MAP-19: the request goes to the fixed address, past every proxy, with Metadata and nothing of ours", async () => {
  using system = createFakeSystem();
  system.route = () => ({ body: JSON.stringify(COMPUTE) });
  await readCompute(system);
  expect(system.requests[0]).toMatchObject({
    method: "GET",
    url: "http://169.254.169.254/metadata/instance/compute?api-version=2018-02-01",
    proxy: "never",
  });
  expect(system.requests[0]?.headers).toEqual({ Metadata: "True" });
  system.route = () => ({ body: JSON.stringify(INSTANCE) });
  await checkImds(system, { agentVersion: "2.15.0.1" });
  expect(system.requests[1]).toMatchObject({
    url: "http://169.254.169.254/metadata/instance?api-version=2018-02-01",
    headers: { Metadata: "True", "User-Agent": "WALinuxAgent/2.15.0.1+health" },
  });
});

test("wire-protocol.md IMDS-01 IMDS-03 IMDS-06: outcomes are told apart, and the text says why", async () => {
  const outcome = async (
    answer: { status: number; body?: string } | Error,
  ): Promise<ImdsOutcome> => {
    using system = createFakeSystem();
    system.route = () => answer;
    return getImds(system, "instance");
  };
  for (const status of [200, 201, 202]) expect((await outcome({ status })).kind).toBe("success");
  const text = (reason: string): string => `IMDS error in /metadata/instance: ${reason}`;
  expect(await outcome({ status: 410 })).toEqual({
    kind: "service-error",
    message: text("HTTP Failed with Status Code 410: Gone"),
  });
  expect(await outcome({ status: 429 })).toEqual({ kind: "throttled", message: text("Throttled") });
  expect(await outcome(new AgentError("http", "x", { errno: "ECONNREFUSED" }))).toEqual({
    kind: "connection-error",
    message: text("Unable to connect to endpoint"),
  });
  for (const status of [500, 503, 505])
    expect((await outcome({ status })).kind).toBe("service-error");
  expect(await outcome({ status: 404, body: "bad version" })).toMatchObject({
    kind: "client-error",
  });
  expect(
    ((await outcome({ status: 404, body: "bad version" })) as { message: string }).message,
  ).toContain("bad version");
});

test("wire-protocol.md IMDS-01: a failing service is asked six times", async () => {
  using system = createFakeSystem();
  system.route = () => ({ status: 500 });
  await getImds(system, "instance");
  expect(system.requests).toHaveLength(6);
});

test("wire-protocol.md IMDS-04 FIX-22: every field, text beyond ASCII, unknown fields left out, absent ones empty", () => {
  expect(parseCompute(JSON.stringify({ ...COMPUTE, unknown: { a: 1 } }))).toEqual(COMPUTE);
  expect(parseCompute("{}")).toMatchObject({ location: "", vmId: "", publisher: null });
  for (const text of ["", "[]", "<html/>", '{"name": 5}'])
    expect(() => parseCompute(text)).toThrow("The compute metadata");
});

test("compute metadata that cannot be had or read are a warning", async () => {
  using system = createFakeSystem();
  system.route = () => ({ body: "<html/>" });
  expect(await readCompute(system)).toBeUndefined();
  system.route = () => ({ status: 404 });
  expect(await readCompute(system)).toBeUndefined();
  expect(
    system.lines.filter((line) => line.startsWith("WARNING IMDS") || line.includes("IMDS error")),
  ).toHaveLength(2);
});

test("wire-protocol.md IMDS-05 system.md MON-10: MAC and private address must be there, and nothing above them empty; compute does not matter", () => {
  const check = (value: unknown): string | undefined => validateInstance(JSON.stringify(value));
  const nic = (members: object) => ({ network: { interface: [members] } });
  expect(check(INSTANCE)).toBeUndefined();
  expect(check({ network: INSTANCE.network })).toBeUndefined();
  expect(check({})).toBe("Missing field: [network]");
  expect(check({ network: null })).toBe("Empty field: [network]");
  expect(check({ network: {} })).toBe("Empty field: [network]");
  expect(check({ network: { other: 1 } })).toBe("Missing field: [interface]");
  expect(check({ network: { interface: [] } })).toBe("Empty field: [interface]");
  expect(check(nic({ ipv4: INSTANCE.network.interface[0]?.ipv4 }))).toBe(
    "Missing field: [macAddress]",
  );
  expect(check(nic({ macAddress: "" }))).toBe("Empty field: [macAddress]");
  expect(check(nic({ macAddress: "x" }))).toBe("Missing field: [ipv4]");
  expect(check(nic({ macAddress: "x", ipv4: { a: 1 } }))).toBe("Missing field: [ipAddress]");
  expect(check(nic({ macAddress: "x", ipv4: { ipAddress: [] } }))).toBe("Empty field: [ipAddress]");
  expect(check(nic({ macAddress: "x", ipv4: { ipAddress: [{}] } }))).toBe(
    "Missing field: [privateIpAddress]",
  );
  expect(check(nic({ macAddress: "x", ipv4: { ipAddress: [{ privateIpAddress: null }] } }))).toBe(
    "Empty field: [privateIpAddress]",
  );
  expect(validateInstance("{")).toStartWith("JSON parsing failed: ");
});

test("wire-protocol.md IMDS-05 IMDS-03: only a service error is unhealthy", async () => {
  const problem = async (
    answer: { status?: number; body?: string } | Error,
  ): Promise<string | undefined> => {
    using system = createFakeSystem();
    system.route = () => answer;
    return checkImds(system, { agentVersion: "1" });
  };
  expect(await problem({ body: JSON.stringify(INSTANCE) })).toBeUndefined();
  expect(await problem({ status: 429 })).toBeUndefined();
  expect(await problem({ status: 404 })).toBeUndefined();
  expect(await problem(new AgentError("http", "x", { errno: "ETIMEDOUT" }))).toBeUndefined();
  expect(await problem({ status: 500 })).toContain("IMDS error");
  expect(await problem({ body: "{}" })).toBe("Missing field: [network]");
});

test("wire-protocol.md IMDS-10 IMDS-11 IMDS-12: image origin by publisher, offer and sku", () => {
  const origin = (
    publisher: string | null,
    offer: string,
    sku: string,
    version = "1.2.3",
  ): number =>
    imageOrigin(parseCompute(JSON.stringify({ ...COMPUTE, publisher, offer, sku, version })));
  expect(imageOrigin(undefined)).toBe(0);
  expect(origin(null, "", "")).toBe(0);
  expect(origin("", "", "")).toBe(1);
  const endorsed: [string, string, string, string?][] = [
    ["Canonical", "UbuntuServer", "14.04.0-LTS"],
    ["CANONICAL", "UBUNTUSERVER", "14.04.8-LTS"],
    ["Canonical", "UbuntuServer", "22.04-LTS"],
    ["CoreOS", "CoreOS", "stable", "494.4.0"],
    ["coreos", "coreos", "Stable", "2000.1"],
    ["credativ", "Debian", "7"],
    ["credativ", "Debian", "9"],
    ["OpenLogic", "CentOS", "6.3"],
    ["OpenLogic", "CentOS", "7.5"],
    ["OpenLogic", "CentOS", "7-LVM"],
    ["OpenLogic", "CentOS-HPC", "7.1"],
    ["RedHat", "RHEL", "6.7"],
    ["RedHat", "RHEL", "7-RAW"],
    ["RedHat", "RHEL-SAP-HANA", "7.2"],
    ["SUSE", "SLES", "12-SP6"],
    ["SUSE", "SLES-BYOS", "15-SP5"],
    ["SUSE", "SLES-SAP", "12"],
    ["SUSE", "SLE-HPC", "15-SP1"],
  ];
  for (const [publisher, offer, sku, version] of endorsed)
    expect([sku, origin(publisher, offer, sku, version)]).toEqual([sku, 2]);
  const others: [string, string, string, string?][] = [
    ["Canonical", "UbuntuServer", "14.04.9-LTS"],
    ["Canonical", "UbuntuServer", "22.04-lts"],
    ["CoreOS", "CoreOS", "Stable", "494.3.9"],
    ["CoreOS", "CoreOS", "Alpha", "9999.0.0"],
    ["credativ", "Debian", "6"],
    ["OpenLogic", "CentOS", "6.2"],
    ["OpenLogic", "CentOS", "7-lvm"],
    ["RedHat", "RHEL", "6.6"],
    ["SUSE", "SLES", "11-SP3"],
    ["SUSE", "SLE-HPC", "15"],
    ["Unknown", "x", "y"],
    ["Canonical", "Other", "22.04-LTS"],
  ];
  for (const [publisher, offer, sku, version] of others)
    expect([sku, origin(publisher, offer, sku, version)]).toEqual([sku, 3]);
});
