/**
 * The host of the soak: a new incarnation as soon as the agent has tried to report the one before, and no upload ever
 * succeeds. It keeps nothing of what it is sent, so that it serves goal states by the ten thousand.
 *
 *     bun test/bench/soak-host.ts GOAL-STATES PROGRESS-FILE     (in the platform's network namespace)
 */
import { renameSync, writeFileSync } from "node:fs";
import { CertificateAuthority } from "../fabric/certificates.ts";
import { startDhcp } from "../fabric/dhcp.ts";
import { STORAGE_HOSTS } from "../fabric/fabric.ts";
import type { Answer } from "../fabric/fault.ts";
import { listen } from "../fabric/listener.ts";
import { HostModel, type StatusDocument } from "../fabric/model.ts";
import { classify, type RequestKind, type ServiceName } from "../fabric/request.ts";
import type { GoalStateDescription, Scenario } from "../fabric/scenario.ts";
import { DEMO_SECRET } from "../fabric/scenarios.ts";

/** What the host knows so far; written to the progress file as JSON. */
export interface SoakProgress {
  /** Goal states whose outcome the agent tried to report. */
  readonly processed: number;
  /** Of those, the ones that the agent says have failed. */
  readonly failed: number;
  /** Refused uploads. */
  readonly refused: Readonly<Partial<Record<RequestKind, number>>>;
}

/**
 * Runs once for each goal state, so it is as cheap as a shell can be: most of the time would be the script's otherwise.
 */
const PACKAGE = {
  name: "Fabric.Soak",
  version: "1.0.0",
  manifest: { enableCommand: "bin/quick.sh" },
  files: [
    {
      name: "bin/quick.sh",
      mode: 0o755,
      content: `#!/bin/sh
cd "\${0%/bin/*}"
[ -d status ] || mkdir status
echo '[{"version": 1.0, "timestampUTC": "2026-01-01T00:00:00Z", "status": {"operation": "enable", "status": "success", "code": 0, "formattedMessage": {"lang": "en-US", "message": "goal state"}}}]' >"status/$ConfigSequenceNumber.status"
`,
    },
  ],
} as const;
/** A model keeps its goal states; a fresh one forgets them. */
const GOALS_PER_MODEL = 200;
const EPOCH = Date.parse("2026-01-01T00:00:00Z");

/** Neither is tried again within the same report: the retries have their own tests, and would only take time here. */
const REFUSALS: Readonly<Partial<Record<RequestKind, number>>> = {
  "plugin-status": 400,
  "status-blob": 404,
  telemetry: 503,
};

function goalState(number: number): GoalStateDescription {
  return {
    incarnation: String(number),
    createdOn: new Date(EPOCH + number * 1000).toISOString(),
    extensions: [
      {
        name: PACKAGE.name,
        version: PACKAGE.version,
        settings: { sequence: number - 1, public: { number }, protected: DEMO_SECRET },
      },
    ],
  };
}

export function soakScenario(first = 1): Scenario {
  return {
    provisioning: { hostName: "fabricvm", userName: "azureuser", password: "S3cret.pass-w0rd" },
    packages: [PACKAGE],
    goalStates: [goalState(first)],
  };
}

async function serve(goalStates: number, progressFile: string): Promise<void> {
  const authority = new CertificateAuthority();
  const makeModel = (first: number): HostModel =>
    new HostModel(soakScenario(first), {
      authority,
      wireServer: "http://168.63.129.16:80",
      storage: [`http://${STORAGE_HOSTS[0]}`, `http://${STORAGE_HOSTS[1]}`],
    });
  authority.prepare(["tenant"]);
  let current = 1;
  let model = makeModel(current);
  let failed = 0;
  const refused: Partial<Record<RequestKind, number>> = {};

  const note = (): void => {
    const progress: SoakProgress = { processed: current - 1, failed, refused };
    writeFileSync(`${progressFile}.tmp`, JSON.stringify(progress));
    renameSync(`${progressFile}.tmp`, progressFile);
  };

  const advance = (document: StatusDocument): void => {
    const { handlerAggregateStatus, vmArtifactsAggregateStatus } = document.aggregateStatus;
    const outcome = vmArtifactsAggregateStatus?.goalStateAggregateStatus;
    if (outcome?.inSvdSeqNo !== String(current) || current > goalStates) return;
    const [handler] = handlerAggregateStatus;
    const state = handler?.runtimeSettingsStatus;
    const isGood =
      outcome.status === "Success" &&
      state?.settingsStatus.status.status === "success" &&
      state.sequenceNumber === current - 1;
    if (!isGood) failed += 1;
    current += 1;
    if (current % GOALS_PER_MODEL === 1) model = makeModel(current);
    else model.setGoalState(goalState(current));
    if (current % 10 === 1) note();
  };

  const counter = { number: 0 };
  const open = (service: ServiceName, host: string, hostname: string, port: number) =>
    listen({
      hostname,
      port,
      handle: (raw) => {
        const kind = classify(service, raw.method, raw.target);
        counter.number += 1;
        const isBinary = kind === "plugin-status" || kind === "status-blob";
        const { answer, status } = model.handle({
          number: counter.number,
          at: performance.now(),
          kind,
          method: raw.method,
          url: `http://${host}${port === 80 ? "" : `:${port}`}${raw.target}`,
          headers: raw.headers,
          body: raw.body.toString(isBinary ? "latin1" : "utf8"),
          bodyBytes: raw.body.length,
          status: 0,
        });
        if (status !== undefined) advance(status.document);
        const refusal = REFUSALS[kind];
        if (refusal !== undefined) refused[kind] = (refused[kind] ?? 0) + 1;
        return Promise.resolve({
          how: "whole",
          answer: refusal === undefined ? answer : refusalOf(refusal),
        });
      },
    });
  await open("wire-server", "168.63.129.16", "168.63.129.16", 80);
  await open("host-plugin", "168.63.129.16", "168.63.129.16", 32526);
  await open("imds", "169.254.169.254", "169.254.169.254", 80);
  await open("storage", STORAGE_HOSTS[0], "10.90.0.10", 80);
  await open("storage", STORAGE_HOSTS[1], "10.90.0.11", 80);
  await startDhcp({}, () => undefined);
  note();
}

function refusalOf(status: number): Answer {
  return {
    status,
    headers: { "Content-Type": "text/plain" },
    body: new TextEncoder().encode("refused on purpose"),
  };
}

if (import.meta.main) {
  const [goalStates, progressFile] = process.argv.slice(2);
  if (goalStates === undefined || progressFile === undefined)
    throw new Error("usage: soak-host.ts GOAL-STATES PROGRESS-FILE");
  await serve(Number(goalStates), progressFile);
}
