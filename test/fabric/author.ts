import { cpSync, existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { readZipMember } from "../../src/system/archive.ts";
import { Root } from "../../src/system/root.ts";
import { AGENT_CONF, startGuest, type Guest } from "../e2e/guest.ts";
import { canSandbox } from "../e2e/sandbox.ts";
import type { StatusDocument } from "./model.ts";
import type { ExtensionDescription, Scenario } from "./scenario.ts";

/** What an author of an extension gives. */
export interface ExtensionRun {
  /** The package, a ZIP file. */
  readonly file: string;
  /** JSON file with the public settings. */
  readonly settings?: string | undefined;
  /** JSON file with the protected settings; they are encrypted for the machine as the platform does. */
  readonly protected?: string | undefined;
  /** Handler name; default from the file's name or the handler manifest. */
  readonly name?: string | undefined;
  /** Folder that logs and output are copied to. */
  readonly keepLogs?: string | undefined;
  readonly write: (text: string) => void;
}

interface Step {
  readonly title: string;
  readonly extension: ExtensionDescription;
  /** Commands the contract prescribes for it, in order. */
  readonly commands: readonly string[];
  /** What the platform must be told at the end: an extension status, a handler status, or nothing of the handler. */
  readonly end: "success" | "disabled" | "gone";
}

const VERSION = "1.0.0";
const NEXT = "1.0.1";
const STEP_MS = 10 * 60_000;

/**
 * Takes one package through its whole life in a throw-away machine with the compiled agent, and prints what ran and what
 * the platform would see. The same package stands for both versions of the update. Resolves to an exit code.
 */
export async function runExtension(run: ExtensionRun): Promise<number> {
  const able = canSandbox();
  if (!able.ok) {
    run.write(`fabric: ${able.reason}\n`);
    return 1;
  }
  const name = run.name ?? nameOf(run.file);
  const archive = readFileSync(run.file).toString("base64");
  const steps = lifeOf(name, json(run.settings), json(run.protected));
  const scenario: Scenario = {
    dhcp: {},
    packages: [VERSION, NEXT].map((version) => ({ name, version, archive })),
    goalStates: [
      { incarnation: "1" },
      ...steps.map(({ extension }, index) => ({
        incarnation: String(index + 2),
        extensions: [extension],
      })),
    ],
  };
  await using guest = await startGuest(scenario, {
    configuration: AGENT_CONF.replace("Provisioning.Agent=waagent", "Provisioning.Agent=disabled"),
  });
  let failures = 0;
  for (const [index, step] of steps.entries()) {
    run.write(`\n${step.title}\n`);
    const problems = await takeStep(guest, name, step, index + 1, run.write);
    for (const problem of problems) run.write(`  PROBLEM  ${problem}\n`);
    failures += problems.length;
  }
  for (const { rule, message } of guest.fabric.violations) {
    run.write(`  VIOLATION  ${rule}: ${message}\n`);
    failures += 1;
  }
  if (run.keepLogs !== undefined) {
    cpSync(path.join(guest.sandbox.root, "var/log/azure", name), run.keepLogs, { recursive: true });
    run.write(`\nLogs and output are in ${run.keepLogs}\n`);
  }
  run.write(failures === 0 ? "\nEverything went as it should.\n" : `\n${failures} problem(s).\n`);
  return failures === 0 ? 0 : 1;
}

function lifeOf(name: string, publicSettings: unknown, protectedSettings: unknown): Step[] {
  const at = (version: string, sequence: number): ExtensionDescription => ({
    name,
    version,
    settings: {
      sequence,
      public: publicSettings ?? {},
      ...(protectedSettings === undefined ? {} : { protected: protectedSettings }),
    },
  });
  return [
    {
      title: "install and enable",
      extension: at(VERSION, 0),
      commands: ["install", "enable"],
      end: "success",
    },
    { title: "new settings", extension: at(VERSION, 1), commands: ["enable"], end: "success" },
    {
      title: `update to ${NEXT}`,
      extension: at(NEXT, 2),
      commands: ["disable", "update", "uninstall", "install?", "enable"],
      end: "success",
    },
    {
      title: "disable",
      extension: { ...at(NEXT, 2), state: "disabled" },
      commands: ["disable"],
      end: "disabled",
    },
    {
      title: "uninstall",
      extension: { ...at(NEXT, 2), state: "uninstall" },
      commands: ["uninstall"],
      end: "gone",
    },
  ];
}

async function takeStep(
  guest: Guest,
  name: string,
  step: Step,
  goalState: number,
  write: (text: string) => void,
): Promise<string[]> {
  const { fabric } = guest;
  const before = outputs(guest, name);
  const began = performance.now();
  await fabric.setGoalState(goalState);
  const sequence = String(goalState + 1);
  const event = await fabric.waitFor(
    (candidate) =>
      candidate.type === "status" && isOver(candidate.status.document, name, sequence, step),
    STEP_MS,
    `the end of "${step.title}"`,
  );
  if (event.type !== "status") throw new Error("Only a status was waited for");
  const commands = outputs(guest, name).filter((one) => !before.includes(one));
  for (const one of commands) showCommand(guest, name, one, write);
  const handler = handlerIn(event.status.document, name);
  const problems: string[] = [];
  const ran = commands.map((one) => one.split("-")[1] ?? "");
  const wanted = step.commands.filter(
    (one) => !one.endsWith("?") || ran.includes(one.slice(0, -1)),
  );
  const expected = wanted.map((one) => one.replace("?", ""));
  if (ran.join() !== expected.join())
    problems.push(`ran ${ran.join(", ") || "nothing"} instead of ${expected.join(", ")}`);
  if (handler === undefined) {
    write("  platform  the handler is not reported any more\n");
    if (step.end !== "gone") problems.push("the platform was not told about the handler");
  } else {
    const extension = handler.runtimeSettingsStatus;
    const inner = extension?.settingsStatus.status;
    write(
      `  platform  ${handler.handlerVersion} ${handler.status}, code ${handler.code}: ${handler.formattedMessage?.message ?? ""}\n`,
    );
    if (extension !== undefined && inner !== undefined)
      write(
        `  platform  settings ${extension.sequenceNumber} ${inner.status}: ${inner.formattedMessage.message ?? ""}\n`,
      );
    if (step.end === "gone") problems.push("the handler is still reported");
    if (
      step.end === "success" &&
      (handler.status.toLowerCase() !== "ready" || inner?.status !== "success")
    )
      problems.push(
        `the handler is ${handler.status}, its settings ${inner?.status ?? "without status"}`,
      );
    if (step.end === "disabled" && (handler.status !== "NotReady" || handler.code !== 0))
      problems.push(`the handler is ${handler.status} with code ${handler.code} after disable`);
  }
  write(`  after ${((performance.now() - began) / 1000).toFixed(1)} s\n`);
  return problems;
}

/** The pass is over, and what the extension says is final. */
function isOver(document: StatusDocument, name: string, sequence: string, step: Step): boolean {
  const { vmArtifactsAggregateStatus } = document.aggregateStatus;
  if (vmArtifactsAggregateStatus?.goalStateAggregateStatus.inSvdSeqNo !== sequence) return false;
  const handler = handlerIn(document, name);
  if (handler === undefined) return step.end === "gone";
  if (step.end !== "success") return true;
  const status = handler.runtimeSettingsStatus?.settingsStatus.status.status;
  return status === "success" || status === "error" || handler.status === "NotReady";
}

function handlerIn(document: StatusDocument, name: string) {
  return document.aggregateStatus.handlerAggregateStatus.find((one) => one.handlerName === name);
}

/** `<time>-<operation>-<id>`, oldest first. */
function outputs(guest: Guest, name: string): string[] {
  const folder = outputFolder(guest, name);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((file) => file.endsWith(".stdout"))
    .map((file) => file.slice(0, -".stdout".length))
    .sort((a, b) => startOf(folder, a) - startOf(folder, b));
}

function startOf(folder: string, name: string): number {
  return Bun.file(path.join(folder, `${name}.stdout`)).lastModified;
}

function outputFolder(guest: Guest, name: string): string {
  return path.join(guest.sandbox.root, "var/log/azure", name, "CommandOutput");
}

function showCommand(
  guest: Guest,
  name: string,
  command: string,
  write: (text: string) => void,
): void {
  write(`  ran       ${command.split("-")[1] ?? command}\n`);
  for (const stream of ["stdout", "stderr"]) {
    const text = readFileSync(path.join(outputFolder(guest, name), `${command}.${stream}`), "utf8");
    for (const line of text
      .split("\n")
      .filter((one) => one !== "")
      .slice(0, 20))
      write(`    ${stream}  ${line.slice(0, 200)}\n`);
  }
}

function json(file: string | undefined): unknown {
  if (file === undefined) return undefined;
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new Error(`${file} is not JSON`, { cause: error });
  }
}

/** `Publisher.Type__1.2.3.zip`, else the name in the handler manifest with a publisher in front. */
function nameOf(file: string): string {
  const stem = path.basename(file).replace(/\.zip$/i, "");
  const parts = stem.split("__");
  if (parts.length === 2 && parts[0]?.includes(".") === true) return parts[0];
  const root = new Root(path.dirname(path.resolve(file)));
  const text = new TextDecoder().decode(
    readZipMember({ root }, `/${path.basename(file)}`, "HandlerManifest.json"),
  );
  const manifest = JSON.parse(text.replace(/^\uFEFF/, "")) as { name?: unknown }[];
  const found = manifest[0]?.name;
  if (typeof found !== "string" || found === "")
    throw new Error(`${file}: the handler manifest has no name; give one with --name`);
  return found.includes(".") ? found : `Author.${found}`;
}
