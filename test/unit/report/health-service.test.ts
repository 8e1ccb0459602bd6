import { expect, test } from "bun:test";
import { durationText, afterOutcome, isTriggered } from "../../../src/report/error-window.ts";
import { createHealthService } from "../../../src/report/health-service.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const world = () => {
  const system = createFakeSystem();
  system.route = () => ({ status: 200 });
  return {
    system,
    service: createHealthService(system, "168.63.129.16"),
    [Symbol.dispose]: () => system[Symbol.dispose](),
  };
};

test("wire-protocol.md HSVC-01 MAP-11 HTTP-15 system.md MON-09: the request, without WireServer headers and proxy", async () => {
  using w = world();
  w.service.observe({ name: "InstanceMetadataHeartbeat", healthy: true, value: "v" });
  await w.service.report();
  const [request] = w.system.requests;
  expect(request).toMatchObject({
    method: "POST",
    url: "http://168.63.129.16:80/HealthService",
    headers: { "Content-Type": "application/json" },
    proxy: "never",
  });
  expect(request?.body).toBe(
    '{"Api": "reporttargethealth", "Version": "1.0", "Source": "WALinuxAgent", "Observations": [{"ObservationName": "InstanceMetadataHeartbeat", "IsHealthy": true, "Description": "", "Value": "v"}]}',
  );
  await w.service.report();
  expect(w.system.requests).toHaveLength(1);
});

test("wire-protocol.md HSVC-02: texts are cut, at most ten wait, and the list is empty after a failure too", async () => {
  using w = world();
  for (let index = 0; index < 11; index += 1)
    w.service.observe({
      name: "GuestAgentPluginStatus",
      healthy: true,
      description: "d".repeat(200),
      value: `${index}${"v".repeat(200)}`,
    });
  await w.service.report();
  const observations = JSON.parse(String(w.system.requests[0]?.body)).Observations;
  expect(observations.map((one: { Value: string }) => one.Value.replace(/v+/, ""))).toEqual([
    "9",
    "10",
  ]);
  expect(observations[0].Value).toHaveLength(128);
  expect(observations[0].Description).toHaveLength(128);

  w.system.route = () => ({ status: 404 });
  w.service.observe({ name: "GuestAgentPluginStatus", healthy: true });
  await w.service.report();
  const sent = w.system.requests.length;
  await w.service.report();
  expect(w.system.requests).toHaveLength(sent);
  expect(w.system.lines.join()).toContain("Could not report to the health service");
});

test("wire-protocol.md HSVC-01 HTTP-08: six attempts", async () => {
  using w = world();
  w.system.route = () => ({ status: 500 });
  w.service.observe({ name: "GuestAgentPluginStatus", healthy: true });
  await w.service.report();
  expect(w.system.requests).toHaveLength(6);
});

test("wire-protocol.md HSVC-03: an unhealthy observation is an event too", () => {
  using w = world();
  w.service.observe({ name: "GuestAgentPluginVersions", healthy: true });
  w.service.observe({ name: "GuestAgentPluginVersions", healthy: false, value: "no answer" });
  expect(w.system.events).toMatchObject([
    {
      operation: "HealthObservation",
      success: false,
      message:
        '{"ObservationName": "GuestAgentPluginVersions", "IsHealthy": false, "Description": "", "Value": "no answer"}',
    },
  ]);
});

test("wire-protocol.md MON-05: windows start at the first failure and end with any success", () => {
  let window = afterOutcome(undefined, false, 1000);
  window = afterOutcome(window, false, 5000);
  expect(isTriggered(window, 5999, 5000)).toBeFalse();
  expect(isTriggered(window, 6000, 5000)).toBeTrue();
  window = afterOutcome(window, true, 7000);
  expect(isTriggered(window, 99_000, 5000)).toBeFalse();
  expect(afterOutcome(window, false, 8000)).toBe(8000);
});

test("wire-protocol.md MON-05 system.md MON-11: durations in minutes or hours, whole days not dropped", () => {
  const minutes = (count: number) => durationText(count * 60_000);
  expect([5, 5.5, 12.347, 59.99, 60, 75, 90, 26 * 60].map(minutes)).toEqual([
    "5.0 min",
    "5.5 min",
    "12.35 min",
    "59.99 min",
    "1.0 hr",
    "1.25 hr",
    "1.5 hr",
    "26.0 hr",
  ]);
});

test("wire-protocol.md HSVC-11 HSVC-12 HSVC-13: what the host plugin's calls are observed as", async () => {
  using w = world();
  for (const name of [
    "GuestAgentPluginStatus",
    "GuestAgentPluginVersions",
    "GuestAgentPluginArtifact",
  ] as const)
    w.service.observe({ name, healthy: false, value: `${name} failed` });
  await w.service.report();
  expect(JSON.parse(String(w.system.requests[0]?.body)).Observations).toEqual([
    {
      ObservationName: "GuestAgentPluginStatus",
      IsHealthy: false,
      Description: "",
      Value: "GuestAgentPluginStatus failed",
    },
    {
      ObservationName: "GuestAgentPluginVersions",
      IsHealthy: false,
      Description: "",
      Value: "GuestAgentPluginVersions failed",
    },
    {
      ObservationName: "GuestAgentPluginArtifact",
      IsHealthy: false,
      Description: "WireClient",
      Value: "GuestAgentPluginArtifact failed",
    },
  ]);
});
