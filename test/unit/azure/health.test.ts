import { expect, test } from "bun:test";
import {
  buildHealthReport,
  reportHealth,
  reportRoleProperties,
} from "../../../src/azure/health.ts";
import { createWireClient } from "../../../src/azure/wire-client.ts";
import { createMachine, ENDPOINT } from "./platform.ts";

const TARGET = { incarnation: "7", containerId: "CID", instanceId: "RID" };

test("wire-protocol.md WIRE-21 WIRE-22 provisioning.md HLTH-01 HLTH-02 HLTH-04: the report is one line, with details only for NotReady", () => {
  const frame = (inner: string): string =>
    `<?xml version="1.0" encoding="utf-8"?><Health xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema"><GoalStateIncarnation>7</GoalStateIncarnation><Container><ContainerId>CID</ContainerId><RoleInstanceList><Role><InstanceId>RID</InstanceId><Health>${inner}</Health></Role></RoleInstanceList></Container></Health>`;
  expect(buildHealthReport(TARGET, { state: "Ready" })).toBe(frame("<State>Ready</State>"));
  expect(
    buildHealthReport(TARGET, {
      state: "NotReady",
      subStatus: "Provisioning",
      description: "Starting",
    }),
  ).toBe(
    frame(
      "<State>NotReady</State><Details><SubStatus>Provisioning</SubStatus><Description>Starting</Description></Details>",
    ),
  );
});

test("wire-protocol.md WIRE-21 provisioning.md HLTH-03: the description is cut to 3686 characters before it is escaped", () => {
  const report = buildHealthReport(TARGET, {
    state: "NotReady",
    subStatus: "Provisioning<Failed>",
    description: "&".repeat(4000),
  });
  expect(report).toContain("<SubStatus>Provisioning&lt;Failed&gt;</SubStatus>");
  expect(report.match(/&amp;/g)?.length).toBe(3686);
});

test("wire-protocol.md WIRE-20 MAP-08 provisioning.md HLTH-01 HLTH-05: it is a POST whose success is 200, 201 or 202", async () => {
  for (const status of [200, 201, 202]) {
    using system = createMachine();
    system.route = () => ({ status });
    const wire = createWireClient(system, ENDPOINT);
    expect(await reportHealth(system, wire, TARGET, { health: { state: "Ready" } })).toBe(true);
    expect(system.requests[0]).toMatchObject({
      method: "POST",
      url: "http://168.63.129.16/machine?comp=health",
      headers: {
        "Content-Type": "text/xml;charset=utf-8",
        "x-ms-agent-name": "WALinuxAgent",
        "x-ms-version": "2012-11-30",
      },
      proxy: "never",
    });
  }
});

test("wire-protocol.md WIRE-23 DB-13 provisioning.md HLTH-07: failures are retried with capped waits, then logged and sent as an event, and are no error", async () => {
  using system = createMachine();
  const times: number[] = [];
  system.route = () => {
    times.push(system.clock.monotonic());
    return { status: 500 };
  };
  const wire = createWireClient(system, ENDPOINT);
  expect(await reportHealth(system, wire, TARGET, { health: { state: "Ready" } })).toBe(false);
  const waits = times.slice(1).map((time, index) => time - (times[index] ?? 0));
  expect(waits.slice(0, 4)).toEqual([30_000, 45_000, 60_000, 60_000]);
  expect(Math.max(...waits)).toBe(60_000);
  expect(times.at(-1)).toBeLessThan(10 * 60_000);
  expect(system.lines.at(-1)).toStartWith("ERROR");
  expect(system.events).toContainEqual(
    expect.objectContaining({ operation: "Provision", success: false }),
  );
});

test("wire-protocol.md WIRE-24 MAP-09 provisioning.md HLTH-08: role properties are accepted with 202 only", async () => {
  using system = createMachine();
  system.route = () => ({ status: 202 });
  const wire = createWireClient(system, ENDPOINT);
  await reportRoleProperties(wire, TARGET, { CertificateThumbprint: 'AB"<' });
  expect(system.requests[0]).toMatchObject({
    method: "POST",
    url: "http://168.63.129.16/machine?comp=roleProperties",
    body: '<?xml version="1.0" encoding="utf-8"?><RoleProperties><Container><ContainerId>CID</ContainerId><RoleInstances><RoleInstance><Id>RID</Id><Properties><Property name="CertificateThumbprint" value="AB&quot;&lt;" /></Properties></RoleInstance></RoleInstances></Container></RoleProperties>',
  });
  system.route = () => ({ status: 200 });
  await expect(reportRoleProperties(wire, TARGET, {})).rejects.toThrow("role properties");
});
