import { describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { dhcpReply, LEASE } from "../../fabric/dhcp.ts";
import { startFabric, type Fabric } from "../../fabric/fabric.ts";
import { FaultPlan, deliver, withoutElement, type Answer } from "../../fabric/fault.ts";
import { classify } from "../../fabric/request.ts";
import type { Scenario } from "../../fabric/scenario.ts";
import { zip } from "../../fabric/zip.ts";

const SCENARIO: Scenario = {
  packages: [{ name: "Pub.Ext", version: "1.0.0" }],
  goalStates: [
    {
      incarnation: "1",
      extensions: [
        { name: "Pub.Ext", version: "1.0.0", settings: { sequence: 0, public: { a: 1 } } },
      ],
    },
    { incarnation: "2", containerId: "99999999-aaaa-4bbb-8ccc-dddddddddddd" },
    { incarnation: "2", source: "FastTrack", onHold: true },
  ],
};
const GOOD = {
  Connection: "close",
  "User-Agent": "WALinuxAgent/2.15.0.1",
  "Accept-Encoding": "identity",
};
const WIRE = { ...GOOD, "x-ms-agent-name": "WALinuxAgent", "x-ms-version": "2012-11-30" };

/** One request on a socket of its own: nothing is added to the headers given. */
async function ask(
  fabric: Fabric,
  origin: string,
  target: string,
  headers: Record<string, string>,
  options: { method?: string; body?: string; waitMs?: number } = {},
): Promise<string> {
  const [host, port] = fabric.connectTo[origin]!.split(":");
  return await new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const socket = connect(Number(port), host!);
    const body = options.body ?? "";
    const lines = Object.entries({
      Host: origin,
      ...headers,
      ...(body === "" ? {} : { "Content-Length": Buffer.byteLength(body) }),
    });
    socket.on("data", (chunk) => chunks.push(Buffer.from(chunk as Buffer)));
    socket.on("error", (error) =>
      chunks.push(Buffer.from(`[${(error as NodeJS.ErrnoException).code}]`)),
    );
    socket.on("close", () => resolve(Buffer.concat(chunks).toString("latin1")));
    setTimeout(() => socket.destroy(), options.waitMs ?? 3000).unref();
    socket.write(
      `${options.method ?? "GET"} ${target} HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}`).join("\r\n")}\r\n\r\n${body}`,
    );
  });
}

const WS = "168.63.129.16:80";
const PLUGIN = "168.63.129.16:32526";

describe("a host on loopback", () => {
  test("answers version negotiation and goal state, and finds nothing wrong with a correct client", async () => {
    await using fabric = await startFabric(SCENARIO, { listen: "loopback" });
    expect(await ask(fabric, WS, "/?comp=versions", GOOD)).toContain(
      "<Version>2012-11-30</Version>",
    );
    expect(await ask(fabric, WS, "/machine/?comp=goalstate", WIRE)).toContain(
      "<Incarnation>1</Incarnation>",
    );
    expect(fabric.violations).toEqual([]);
    expect(fabric.requests.map((one) => one.kind)).toEqual(["versions", "goal-state"]);
  });

  test("reports each header that is missing or wrong by the rule it breaks", async () => {
    await using fabric = await startFabric(SCENARIO, { listen: "loopback" });
    await ask(fabric, WS, "/machine/?comp=goalstate", {
      "User-Agent": "Bun/1.4.5",
      Connection: "keep-alive",
      "x-ms-version": "2015-04-05",
    });
    expect(fabric.violations.map((one) => one.rule)).toEqual([
      "HTTP-01",
      "HTTP-02",
      "HTTP-03",
      "WIRE-03",
      "WIRE-03",
    ]);
    await ask(fabric, WS, "/machine/?comp=nonsense", WIRE);
    expect(fabric.violations.at(-1)?.rule).toBe("MAP-01");
  });

  test("answers 410 to a stale container id, and calls it a breach once the new goal state was read", async () => {
    await using fabric = await startFabric(SCENARIO, { listen: "loopback" });
    await ask(fabric, WS, "/machine/?comp=goalstate", WIRE);
    await fabric.setGoalState(1);
    const stale = {
      ...GOOD,
      "x-ms-version": "2015-09-01",
      "x-ms-containerid": "5d5c2f1a-0c7e-4d0b-9c38-7a1f0b2e6d11",
      "x-ms-host-config-name":
        "3f8a4c52-9d11-4b0e-8f6e-2b7c5a90e341.0.3f8a4c52-9d11-4b0e-8f6e-2b7c5a90e341.0._web.1.xml",
      "x-ms-client-correlationid": crypto.randomUUID(),
    };
    expect(await ask(fabric, PLUGIN, "/vmSettings", stale)).toStartWith("HTTP/1.1 410");
    expect(fabric.violations).toEqual([]);
    await ask(fabric, WS, "/machine/?comp=goalstate", WIRE);
    await ask(fabric, PLUGIN, "/vmSettings", {
      ...stale,
      "x-ms-client-correlationid": crypto.randomUUID(),
    });
    expect(fabric.violations.map((one) => one.rule)).toEqual(["GS-11"]);
  });

  test("vmSettings keep a big tick count and an ETag that answers 304", async () => {
    await using fabric = await startFabric(SCENARIO, { listen: "loopback" });
    await fabric.setGoalState(2);
    await ask(fabric, WS, "/machine/?comp=goalstate", WIRE);
    const headers = {
      ...GOOD,
      "x-ms-version": "2015-09-01",
      "x-ms-containerid": "99999999-aaaa-4bbb-8ccc-dddddddddddd",
      "x-ms-host-config-name":
        "3f8a4c52-9d11-4b0e-8f6e-2b7c5a90e341.0.3f8a4c52-9d11-4b0e-8f6e-2b7c5a90e341.0._web.1.xml",
    };
    const first = await ask(fabric, PLUGIN, "/vmSettings", {
      ...headers,
      "x-ms-client-correlationid": crypto.randomUUID(),
    });
    expect(first).toContain('"extensionsLastModifiedTickCount":6390');
    expect(first).toContain('"onHold":true');
    const etag = /ETag: (\d+)/.exec(first)?.[1];
    const second = await ask(fabric, PLUGIN, "/vmSettings", {
      ...headers,
      "x-ms-client-correlationid": crypto.randomUUID(),
      "if-none-match": etag!,
    });
    expect(second).toStartWith("HTTP/1.1 304");
    expect(fabric.violations).toEqual([]);
  });

  test("a health report of another shape, and a telemetry event with a wrong type, are breaches", async () => {
    await using fabric = await startFabric(SCENARIO, { listen: "loopback" });
    const post = { ...WIRE, "Content-Type": "text/xml;charset=utf-8" };
    await ask(fabric, WS, "/machine?comp=health", post, {
      method: "POST",
      body: "<Health><State>Ready</State></Health>",
    });
    expect(fabric.violations.map((one) => one.rule)).toEqual(["WIRE-21"]);
    const body =
      '<?xml version="1.0"?><TelemetryData version="1.0"><Provider id="69B669B9-4AF8-4C50-BDC4-6006FA76E975"><Event id="4"><![CDATA[<Param Name="Value" Value="1" T="mt:float64" />]]></Event></Provider></TelemetryData>';
    await ask(fabric, WS, "/machine?comp=telemetrydata", post, { method: "POST", body });
    expect(fabric.violations.slice(1).map((one) => one.rule)).toContain("TEL-30");
  });

  test("faults hit the request they name, as often as they say", async () => {
    await using fabric = await startFabric(
      {
        ...SCENARIO,
        faults: [
          { request: { kind: "versions" }, fault: { kind: "status", status: 503, retryAfter: 7 } },
          { request: { kind: "goal-state" }, fault: { kind: "truncated" } },
          { request: { kind: "goal-state" }, fault: { kind: "reset" } },
        ],
      },
      { listen: "loopback" },
    );
    expect(await ask(fabric, WS, "/?comp=versions", GOOD)).toMatch(
      /^HTTP\/1.1 503[\s\S]*Retry-After: 7/,
    );
    expect(await ask(fabric, WS, "/?comp=versions", GOOD)).toStartWith("HTTP/1.1 200");
    const cut = await ask(fabric, WS, "/machine/?comp=goalstate", WIRE);
    expect(cut).not.toContain("</GoalState>");
    expect(await ask(fabric, WS, "/machine/?comp=goalstate", WIRE)).toBe("[ECONNRESET]");
    expect(await ask(fabric, WS, "/machine/?comp=goalstate", WIRE)).toContain("</GoalState>");
    expect(fabric.requests.map((one) => one.fault)).toEqual([
      "status",
      undefined,
      "truncated",
      "reset",
      undefined,
    ]);
  });

  test("steps follow what was seen", async () => {
    await using fabric = await startFabric(
      {
        ...SCENARIO,
        steps: [{ when: { seen: { event: "goal-state", count: 2 } }, do: { goalState: 1 } }],
      },
      { listen: "loopback" },
    );
    expect(await ask(fabric, WS, "/machine/?comp=goalstate", WIRE)).toContain("<Incarnation>1<");
    await ask(fabric, WS, "/machine/?comp=goalstate", WIRE);
    await fabric.waitFor((event) => event.type === "goal-state", 1000);
    expect(await ask(fabric, WS, "/machine/?comp=goalstate", WIRE)).toContain("<Incarnation>2<");
  });
});

const ANSWER: Answer = {
  status: 200,
  headers: {},
  body: new TextEncoder().encode("<A><B x='1'>text</B><C/></A>"),
};

test("faults change the answer that would have been right", () => {
  const body = (fault: Parameters<typeof deliver>[1]) => {
    const delivery = deliver(ANSWER, fault);
    return "answer" in delivery ? Buffer.from(delivery.answer.body) : undefined;
  };
  expect(body({ kind: "missing", name: "B" })?.toString()).toBe("<A><C/></A>");
  expect(body({ kind: "bom" })?.subarray(0, 3)).toEqual(Buffer.from([0xef, 0xbb, 0xbf]));
  expect(body({ kind: "oversized", bytes: 1000 })).toHaveLength(1000);
  expect(body({ kind: "garbled" })?.toString()).not.toContain("<A>");
  expect(body({ kind: "doctype" })?.toString()).toStartWith("<!DOCTYPE");
  expect(withoutElement('{"a":1,"b":[{"a":2,"c":3}]}', "a")).toBe('{"b":[{"c":3}]}');
});

test("a fault plan skips, counts and ends", () => {
  const plan = new FaultPlan([
    { request: { kind: "versions" }, fault: { kind: "reset" }, times: 2, skip: 1 },
  ]);
  const taken = [1, 2, 3, 4].map(() => plan.take({ kind: "versions", url: "" })?.kind);
  expect(taken).toEqual([undefined, "reset", "reset", undefined]);
});

test("requests are named by service, method and target", () => {
  expect(
    classify("wire-server", "GET", "/machine/a/b?comp=config&type=sharedConfig&incarnation=1"),
  ).toBe("shared-config");
  expect(classify("wire-server", "POST", "/machine?comp=health")).toBe("health");
  expect(classify("wire-server", "POST", "/machine/?comp=health")).toBe("unknown");
  expect(classify("host-plugin", "GET", "/vmSettings")).toBe("vm-settings");
  expect(classify("storage", "GET", "/packages/x.zip")).toBe("package");
});

test("archives are the same bytes each time and unzip reads them", async () => {
  const entries = [
    { name: "bin/a.sh", content: "#!/bin/sh\n", mode: 0o755 },
    { name: "b.json", content: "{}" },
  ];
  expect(zip(entries)).toEqual(zip(entries));
  const listed =
    Bun.which("python3") === null
      ? undefined
      : Bun.spawnSync(
          [
            "python3",
            "-c",
            "import sys,zipfile,io;z=zipfile.ZipFile(io.BytesIO(sys.stdin.buffer.read()));print(z.testzip(),z.namelist())",
          ],
          { stdin: Buffer.from(zip(entries)) },
        );
  if (listed !== undefined)
    expect(listed.stdout.toString().trim()).toBe("None ['bin/a.sh', 'b.json']");
});

test("a DHCP discover gets an offer with the endpoint and the routes", () => {
  const discover = Buffer.alloc(244);
  discover.set([1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
  discover.set([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255], 236);
  const offer = dhcpReply(discover, { routes: ["10.1.0.0/16 via 10.0.0.1"] }, LEASE)!;
  expect(offer.subarray(4, 8).toString("hex")).toBe("deadbeef");
  const options = offer.subarray(240).toString("hex");
  expect(options).toContain("f504a83f8110");
  expect(options).toContain("f907100a010a000001");
  expect(dhcpReply(Buffer.alloc(300), {}, LEASE)).toBeUndefined();
});
