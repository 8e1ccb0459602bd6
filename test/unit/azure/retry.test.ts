import { expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import {
  createHttpErrorCounts,
  downloadWithRetry,
  drainHttpErrors,
  failedAtHostPlugin,
  requestWithRetry,
  retryAfterMs,
  type RetryOptions,
} from "../../../src/azure/retry.ts";
import type { HttpRequest } from "../../../src/system/http.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

const REQUEST: HttpRequest = {
  method: "GET",
  url: "https://storage.example/c/blob?sig=SECRET",
  proxy: "allowed",
};
const STILL: RetryOptions = { random: () => 0 };

/** Runs until success or failure; gives the error (or undefined), the number of requests and the waits between them. */
async function run(
  system: FakeSystem,
  options: RetryOptions = {},
  request: HttpRequest = REQUEST,
): Promise<{ error: AgentError | undefined; attempts: number; waits: number[] }> {
  const times: number[] = [];
  const route = system.route;
  system.route = (seen) => {
    times.push(system.clock.monotonic());
    return route(seen);
  };
  let error: AgentError | undefined;
  try {
    await requestWithRetry(system, request, { ...STILL, ...options });
  } catch (reason) {
    error = reason as AgentError;
  }
  const waits = times.slice(1).map((time, index) => time - (times[index] ?? 0));
  return { error, attempts: times.length, waits };
}

test("wire-protocol.md HTTP-05: 200, 201 and 202 are success, 204 and 304 are not", async () => {
  for (const [status, ok] of [
    [200, true],
    [201, true],
    [202, true],
    [204, false],
    [304, false],
  ] as const) {
    using system = createFakeSystem();
    system.route = () => ({ status });
    const { error, attempts } = await run(system);
    expect(error === undefined).toBe(ok);
    expect(attempts).toBe(1);
  }
});

test("wire-protocol.md HTTP-05: a caller may name other success statuses", async () => {
  using system = createFakeSystem();
  system.route = () => ({ status: 200 });
  expect((await run(system, { okStatuses: [201] })).error?.status).toBe(200);
});

test("wire-protocol.md HTTP-06 HTTP-08: retryable statuses get six attempts with waits of 2, 3, 5, 8 and 13 s", async () => {
  for (const status of [205, 206, 500, 501, 502, 504, 507]) {
    using system = createFakeSystem();
    system.route = () => ({ status });
    const { error, attempts, waits } = await run(system);
    expect(attempts).toBe(6);
    expect(waits).toEqual([2000, 3000, 5000, 8000, 13_000]);
    expect(error?.status).toBe(status);
  }
});

test("wire-protocol.md HTTP-06: other statuses fail at once, unless the call adds them", async () => {
  for (const status of [301, 302, 400, 401, 404, 409, 412, 416]) {
    using system = createFakeSystem();
    system.route = () => ({ status });
    expect((await run(system)).attempts).toBe(1);
  }
  using system = createFakeSystem();
  system.route = () => ({ status: 400 });
  expect((await run(system, { alsoRetry: [400] })).attempts).toBe(6);
});

test("wire-protocol.md HTTP-07 HTTP-09: after 403, 429 or 503 every wait is one second and there are 25 attempts", async () => {
  for (const status of [403, 429, 503]) {
    using system = createFakeSystem();
    system.route = () => ({ status });
    const { attempts, waits } = await run(system);
    expect(attempts).toBe(25);
    expect(waits).toEqual(Array<number>(24).fill(1000));
  }
});

test("wire-protocol.md HTTP-09: one throttled attempt is enough, and the limit can be left alone", async () => {
  using system = createFakeSystem();
  const statuses = [500, 503];
  system.route = () => ({ status: statuses.shift() ?? 500 });
  const { attempts, waits } = await run(system);
  expect(attempts).toBe(25);
  expect(waits.slice(0, 3)).toEqual([2000, 1000, 1000]);
  using telemetry = createFakeSystem();
  telemetry.route = () => ({ status: 503 });
  const policy = { attempts: 3, throttledAttempts: 3, throttleDelayMs: 8000 };
  const result = await run(telemetry, policy);
  expect(result.attempts).toBe(3);
  expect(result.waits).toEqual([8000, 8000]);
});

test("wire-protocol.md DB-14: Retry-After is honoured within a minute, and waits are spread", async () => {
  using system = createFakeSystem();
  const answers = [{ status: 429, headers: { "Retry-After": "7" } }, { status: 200 }];
  system.route = () => answers.shift() ?? {};
  expect((await run(system)).waits).toEqual([7000]);
  using spread = createFakeSystem();
  spread.route = () => ({ status: 503 });
  const { waits } = await run(spread, { attempts: 2, throttledAttempts: 2, random: () => 0.5 });
  expect(waits).toEqual([1125]);
});

test("Retry-After is seconds or a date, and nonsense counts as absent", () => {
  const now = Date.UTC(2030, 0, 1);
  expect(retryAfterMs("120", now)).toBe(60_000);
  expect(retryAfterMs(new Date(now + 5000).toUTCString(), now)).toBe(5000);
  expect(retryAfterMs(new Date(now - 5000).toUTCString(), now)).toBe(0);
  expect(retryAfterMs("soon", now)).toBe(0);
  expect(retryAfterMs("-4", now)).toBe(0);
  expect(retryAfterMs(undefined, now)).toBe(0);
});

test("wire-protocol.md HTTP-10: connection errors are tried again, a refusal or a body that is too large is final", async () => {
  using system = createFakeSystem();
  const { attempts, error } = await run(system);
  expect(attempts).toBe(6);
  expect(error?.errno).toBe("ECONNREFUSED");
  for (const final of [
    new AgentError("http", "too large", { errno: "EMSGSIZE" }),
    new AgentError("refused", "not here"),
    new AgentError("bad-input", "no URL"),
    new AgentError("cancelled", "stop"),
  ]) {
    using other = createFakeSystem();
    other.route = () => final;
    const result = await run(other);
    expect(result.attempts).toBe(1);
    expect(result.error).toBe(final);
  }
});

test("wire-protocol.md HTTP-11: the error says how often it was tried, and never shows the query", async () => {
  using system = createFakeSystem();
  system.route = () => ({ status: 500 });
  expect((await run(system)).error?.message).toBe(
    "[HTTP Retry] GET https://storage.example/c/blob -- Status Code 500 -- 6 attempts made",
  );
  using broken = createFakeSystem();
  const message = (await run(broken)).error?.message ?? "";
  expect(message).toStartWith("[HTTP Failed] GET https://storage.example/c/blob -- IOError ");
  expect(message).toEndWith(" -- 6 attempts made");
  expect(message).not.toContain("SECRET");
});

test("wire-protocol.md HTTP-19: the error of a final status holds status, reason and body in ASCII", async () => {
  using system = createFakeSystem();
  system.route = () => ({ status: 404, reason: "Not Found", body: "gr\u00fcn nix" });
  expect((await run(system)).error?.message).toBe(
    "GET https://storage.example/c/blob: [HTTP Failed] [404: Not Found] grn nix",
  );
});

test("wire-protocol.md HTTP-16: 410 and the 400 that names the container configuration are told apart from other failures", async () => {
  const codeOf = async (status: number, body = ""): Promise<string | undefined> => {
    using system = createFakeSystem();
    system.route = () => ({ status, body });
    return (await run(system)).error?.code;
  };
  expect(await codeOf(410, "RequestRoleConfigFileNotFound")).toBe("gone");
  expect(await codeOf(400, "<Code>InvalidContainerConfiguration</Code>")).toBe("invalid-container");
  expect(await codeOf(400, "something else")).toBe("http");
});

test("wire-protocol.md HTTP-17: connection errors are counted by peer, statuses are not", async () => {
  const errors = createHttpErrorCounts();
  const count = async (url: string): Promise<void> => {
    using system = createFakeSystem();
    await run(system, { attempts: 2, endpoint: "168.63.129.16", errors }, { ...REQUEST, url });
  };
  await count("http://168.63.129.16:32526/status");
  await count("http://168.63.129.16/machine/?comp=goalstate");
  await count("http://168.63.129.16:80/x");
  await count("https://storage.example/blob");
  using system = createFakeSystem();
  system.route = () => ({ status: 500 });
  await run(system, { endpoint: "168.63.129.16", errors });
  expect(drainHttpErrors(errors)).toEqual({ hostplugin: 2, protocol: 4, other: 2 });
  expect(drainHttpErrors(errors)).toEqual({ hostplugin: 0, protocol: 0, other: 0 });
});

test("wire-protocol.md HTTP-20: failed at the host plugin means 5xx but 502", () => {
  expect([499, 500, 501, 502, 503, undefined].map(failedAtHostPlugin)).toEqual([
    false,
    true,
    true,
    false,
    true,
    false,
  ]);
});

test("wire-protocol.md DB-15: the whole call is bounded, however slow each attempt is", async () => {
  using system = createFakeSystem();
  const deadlines: (number | undefined)[] = [];
  system.route = async (request) => {
    deadlines.push(request.deadlineMs);
    await system.clock.sleep(request.deadlineMs ?? 0);
    return new AgentError("http", "timed out", { errno: "ETIMEDOUT" });
  };
  const { error, attempts } = await run(system, { totalMs: 30_000 });
  expect(error?.errno).toBe("ETIMEDOUT");
  expect(attempts).toBe(3);
  expect(deadlines).toEqual([10_000, 10_000, 5000]);
  expect(system.clock.monotonic()).toBeLessThanOrEqual(30_000);
});

test("one wait is never longer than its limit", async () => {
  using system = createFakeSystem();
  system.route = () => ({ status: 500 });
  const { waits } = await run(system, { delayMs: 15_000, maxDelayMs: 40_000, totalMs: 600_000 });
  expect(waits).toEqual([30_000, 40_000, 40_000, 40_000, 40_000]);
});

test("a download goes to a file, and a status of success without a body does not count", async () => {
  using system = createFakeSystem();
  const answers = [{ status: 503 }, { status: 200, body: "12345" }];
  system.route = () => answers.shift() ?? {};
  expect(await downloadWithRetry(system, REQUEST, "/tmp/x", STILL)).toBe(5);
  expect(system.files.readText("/tmp/x")).toBe("12345");
  system.route = () => ({ status: 202 });
  await expect(downloadWithRetry(system, REQUEST, "/tmp/y", STILL)).rejects.toThrow("202");
  expect(system.files.exists("/tmp/y")).toBe(false);
});
